//! Placeholder.
mod proto;
fn main() -> anyhow::Result<()> {
    proto::generate(std::path::Path::new("."))
}
