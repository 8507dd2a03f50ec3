//! `flydex doctor`.

use crate::cli::args::DoctorArguments;
use crate::cli::{Context, Problem};

/// Looks.
pub(crate) async fn doctor(_context: &Context, _arguments: DoctorArguments) -> Result<(), Problem> {
    Ok(())
}
