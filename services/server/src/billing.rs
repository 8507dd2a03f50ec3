//! The configuration of billing, which only a control process of a cluster has.

use std::path::PathBuf;

use flydex_control::{Billing, WebhookSecret};
use flydex_domain::billing::{Catalogue, Entitlements, Plan};
use serde::{Deserialize, Serialize};

use crate::cluster::BadField;
use crate::cluster::secret::{expose, secret};

/// The name of what is free.
const FREE: &str = "free";

/// What is sold, and how the payment provider proves itself. See docs/BILLING.md.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BillingConfig {
    /// File with the secret that the provider signs its events with (`whsec_…`); one a line while one takes the place
    /// of another. Needed.
    pub webhook_secret_file: PathBuf,
    /// What an account may have without a subscription. Needed.
    pub free: Limits,
    /// What is sold. Default nothing.
    #[serde(default)]
    pub plans: Vec<PlanConfig>,
}

/// How much of each.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Paired computers.
    pub machines: u32,
    /// Members and open invitations.
    pub seats: u32,
}

/// One plan.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PlanConfig {
    /// Its name, for people.
    pub name: String,
    /// The provider's name of its price.
    pub price: String,
    /// Paired computers.
    pub machines: u32,
    /// Members and open invitations.
    pub seats: u32,
}

impl BillingConfig {
    /// Reads the secret and checks that plans are told apart.
    ///
    /// # Errors
    /// [`BadField`] for what cannot be used.
    pub(crate) fn read(&self) -> Result<Billing, BadField> {
        let text = secret("billing.webhook_secret", None, Some(&self.webhook_secret_file))?;
        let lines = expose(&text).lines().map(str::trim).filter(|line| !line.is_empty());
        let secrets: Vec<_> = lines.map(WebhookSecret::new).collect();
        if secrets.is_empty() {
            return Err(BadField::new("billing.webhook_secret_file", "it holds no secret"));
        }
        let plan = |name: &str, machines: u32, seats: u32| Plan {
            name: name.to_owned(),
            entitlements: Entitlements { machines: machines.into(), seats: seats.into() },
        };
        let mut catalogue = Catalogue { free: plan(FREE, self.free.machines, self.free.seats), by_price: [].into() };
        for sold in &self.plans {
            let known = catalogue.by_price.insert(sold.price.clone(), plan(&sold.name, sold.machines, sold.seats));
            if known.is_some() {
                return Err(BadField::new("billing.plans", "two plans have one price"));
            }
        }
        Ok(Billing { secrets, catalogue })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(secret: &str, prices: &[&str]) -> (tempfile::TempDir, BillingConfig) {
        let folder = tempfile::tempdir().unwrap();
        let webhook_secret_file = folder.path().join("secret");
        std::fs::write(&webhook_secret_file, secret).unwrap();
        let plan =
            |price: &&str| PlanConfig { name: "team".to_owned(), price: (*price).to_owned(), machines: 2, seats: 3 };
        let plans = prices.iter().map(plan).collect();
        (folder, BillingConfig { webhook_secret_file, free: Limits { machines: 1, seats: 1 }, plans })
    }

    #[test]
    fn a_secret_a_line_is_read_and_none_is_printed() {
        let (_folder, config) = config("whsec_old\n\nwhsec_new\n", &["price_1"]);
        let billing = config.read().unwrap();
        assert_eq!(billing.secrets.len(), 2);
        assert_eq!(billing.catalogue.by_price["price_1"].entitlements, Entitlements { machines: 2, seats: 3 });
        assert!(!format!("{billing:?} {config:?}").contains("whsec"));
    }

    #[test]
    fn an_empty_secret_or_a_price_that_is_two_plans_is_refused() {
        assert!(config("\n", &[]).1.read().is_err());
        assert!(config("whsec_1", &["price_1", "price_1"]).1.read().is_err());
    }
}
