//! Which versions of Codex this connector speaks.

use flydex_domain::error::ErrorCode;

/// The oldest version that is spoken.
const OLDEST: (u64, u64) = (0, 169);
/// The newest version whose methods are all classified; a newer one is only read.
const NEWEST_KNOWN: (u64, u64) = (0, 169);

/// A version that is spoken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    /// As Codex says it.
    pub(super) text: String,
    /// Newer than known: reads only.
    pub(super) read_only: bool,
}

/// Judges the version in Codex's `userAgent`: `<client>/<version> (…) …`.
///
/// # Errors
/// `codex_too_old`, also when no version can be read.
pub(super) fn judge(user_agent: &str) -> Result<Version, ErrorCode> {
    let after_client = user_agent.split_once('/').map(|(_, rest)| rest).ok_or(ErrorCode::CodexTooOld)?;
    let text = after_client.split_ascii_whitespace().next().unwrap_or_default();
    let mut numbers = text.split(['.', '-']).map(str::parse::<u64>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return Err(ErrorCode::CodexTooOld);
    };
    if (major, minor) < OLDEST {
        return Err(ErrorCode::CodexTooOld);
    }
    let text = text.chars().take(32).collect();
    Ok(Version { text, read_only: (major, minor) > NEWEST_KNOWN })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_decides_between_all_reading_only_and_nothing() {
        let known = judge("flydex_connector/0.169.0 (Debian 12.0.0; x86_64) xterm (flydex_connector; 0.1)");
        assert_eq!(known, Ok(Version { text: "0.169.0".to_owned(), read_only: false }));
        assert!(judge("flydex_connector/0.170.0-alpha.1 (x)").is_ok_and(|version| version.read_only));
        assert!(judge("flydex_connector/1.0.0 (x)").is_ok_and(|version| version.read_only));
        assert_eq!(judge("flydex_connector/0.168.9 (x)"), Err(ErrorCode::CodexTooOld));
        assert_eq!(judge("nonsense"), Err(ErrorCode::CodexTooOld));
        assert_eq!(judge("a/b"), Err(ErrorCode::CodexTooOld));
    }
}
