//! The scripted model as a process of its own, for the demo and for working by hand.

use clap::Parser;
use flydex_tests::model::Model;

/// Serves the scripted model until the process is stopped.
#[derive(Parser)]
#[command(name = "flydex-model")]
struct Arguments {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: String,
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the address is this program's output")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let model = Model::bind(&arguments.listen).await?;
    println!("model at {}", model.base_url());
    tokio::signal::ctrl_c().await?;
    Ok(())
}
