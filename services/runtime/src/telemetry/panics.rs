//! A panic is told by its place alone. What it says of itself may hold whatever the task had in hand, so it is neither
//! written to the log nor to standard error.

use std::panic::{self, Location};

/// From now on each panic of this process is one line of its log. The task ends as before.
pub fn install() {
    panic::set_hook(Box::new(|panicked| tell(panicked.location())));
}

fn tell(location: Option<&Location<'_>>) {
    let location = location.map(ToString::to_string).unwrap_or_default();
    tracing::error!(panic.location = location, "panicked");
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::telemetry::LogFormat;
    use crate::telemetry::log::LogLayer;
    use crate::telemetry::log::tests::Lines;

    #[test]
    fn a_panic_is_told_by_its_place_and_not_by_what_it_says() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::registry().with(LogLayer::new(LogFormat::Text, move || writer.clone()));
        let before = panic::take_hook();
        install();
        let outcome = tracing::subscriber::with_default(subscriber, || {
            panic::catch_unwind(|| {
                let told: Result<(), String> = std::hint::black_box(Err("secret words".to_owned()));
                told.expect("the frame is whole");
            })
        });
        panic::set_hook(before);
        assert!(outcome.is_err());
        let text = lines.text();
        assert!(text.contains(" ERROR flydex_runtime::telemetry::panics panicked "), "{text}");
        assert!(text.contains("panics.rs:"), "{text}");
        assert!(!text.contains("secret words") && !text.contains("the frame is whole"), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}
