//! A PostgreSQL for as long as somebody holds this program's standard input, for tests of several crates.

use flydex_tests::postgres::Postgres;
use tokio::io::AsyncReadExt as _;

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the address is this program's output")]
async fn main() -> anyhow::Result<()> {
    let postgres = Postgres::start().await?;
    println!("{}", postgres.url());
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    Ok(())
}
