//! Secrets of the configuration: given in place or by a file, and never shown.

use std::fs;
use std::path::Path;

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize, Serializer};

use super::BadField;

/// A secret that was given in place.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct Secret(SecretString);

flydex_domain::never_implements!(Secret: std::fmt::Display, AsRef<str>, PartialEq);

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl Serialize for Secret {
    /// Never the secret: this is for people who look at the configuration in force.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("(secret)")
    }
}

/// The one secret that is given in place or by a file.
///
/// # Errors
/// [`BadField`] when neither or both are, or the file cannot be read.
pub(crate) fn secret(
    field: &'static str,
    given: Option<&Secret>,
    file: Option<&Path>,
) -> Result<SecretString, BadField> {
    match (given, file) {
        (Some(secret), None) => Ok(secret.0.clone()),
        (None, Some(path)) => {
            let text = fs::read_to_string(path)
                .map_err(|error| BadField::new(field, format!("cannot read {}: {error}", path.display())))?;
            Ok(text.trim().into())
        }
        (None, None) => Err(BadField::new(field, format!("set {field}, or {field}_file to a file that holds it"))),
        (Some(_), Some(_)) => Err(BadField::new(field, format!("set {field} or {field}_file, not both"))),
    }
}

/// The text itself, at the place of its use.
pub(crate) fn expose(secret: &SecretString) -> &str {
    secret.expose_secret()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_given_once_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("url");
        fs::write(&file, "from a file\n").unwrap();
        let given = Secret::from("in place");
        assert_eq!(expose(&secret("x", Some(&given), None).unwrap()), "in place");
        assert_eq!(expose(&secret("x", None, Some(&file)).unwrap()), "from a file");
        for refused in [secret("x", None, None), secret("x", Some(&given), Some(&file))] {
            assert!(refused.unwrap_err().to_string().starts_with("x: set x"));
        }
        let shown = serde_json::to_string(&given).unwrap() + &format!("{given:?}");
        assert!(!shown.contains("in place"), "{shown}");
    }
}
