//! `flydex settings`: what the desk allows, and what each choice means.

use clap::ValueEnum as _;

use super::args::{Setting, SettingsArguments, SettingsCommand, Switch};
use super::{Context, Problem, desk_side};
use crate::record::Settings;

/// Shows the settings, or changes one.
pub(super) async fn settings(context: &Context, arguments: SettingsArguments) -> Result<(), Problem> {
    let mut settings = Settings::load(&context.state)?;
    match arguments.command {
        None => {
            for setting in Setting::value_variants() {
                let on = if *setting.of(&mut settings) { "on" } else { "off" };
                context.screen.line(&format!("{:<24}{on:<5}{}", setting.name(), setting.meaning()));
            }
            Ok(())
        }
        Some(SettingsCommand::Set { name, value }) => {
            *name.of(&mut settings) = value == Switch::On;
            desk_side::keep_settings(context, &settings).await
        }
    }
}

impl Setting {
    fn of(self, settings: &mut Settings) -> &mut bool {
        match self {
            Self::SessionAcceptance => &mut settings.session_acceptance,
            Self::AllowUnguarded => &mut settings.allow_unguarded,
            Self::StrictAudit => &mut settings.strict_audit,
            Self::RequireChannelBinding => &mut settings.require_channel_binding,
            Self::EnrolAtDeskOnly => &mut settings.enrol_at_desk_only,
            Self::RefuseBrowserKeys => &mut settings.refuse_browser_keys,
            Self::PasskeyForHighRisk => &mut settings.passkey_for_high_risk,
        }
    }

    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// As in the help of the command line.
    fn meaning(self) -> String {
        let value = self.to_possible_value();
        value.and_then(|value| value.get_help().map(ToString::to_string)).unwrap_or_default()
    }
}
