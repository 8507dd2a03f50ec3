//! Benches: each figure beside a floor that was measured in the same run, so that a busy machine shifts both.

pub mod forward;
pub mod micro;
pub mod rebuild;
mod region;
pub mod relay;

use std::time::Duration;

use hdrhistogram::Histogram;

/// One measured thing and its floor.
#[derive(Debug)]
pub struct Figure {
    /// What was measured.
    pub name: &'static str,
    /// What the floor is.
    pub floor_name: &'static str,
    /// Time of each try.
    pub times: Histogram<u64>,
    /// Time of each try of the floor.
    pub floor: Histogram<u64>,
}

impl Figure {
    /// An empty figure.
    ///
    /// # Errors
    /// Never in practice: the bounds are constants.
    pub fn new(name: &'static str, floor_name: &'static str) -> anyhow::Result<Self> {
        // From a nanosecond to a minute, to three digits.
        let histogram = Histogram::new_with_bounds(1, 60_000_000_000, 3)?;
        Ok(Self { name, floor_name, times: histogram.clone(), floor: histogram })
    }

    /// One line: p50 and p99 of both, and how often the floor fits into the median.
    #[must_use]
    pub fn line(&self) -> String {
        let of = |histogram: &Histogram<u64>, quantile| Duration::from_nanos(histogram.value_at_quantile(quantile));
        let ratio = self.times.value_at_quantile(0.5) as f64 / self.floor.value_at_quantile(0.5).max(1) as f64;
        format!(
            "{:<44} p50 {:>10.1?}  p99 {:>10.1?}  | {:<32} p50 {:>10.1?}  p99 {:>10.1?}  | x{ratio:.1}",
            self.name,
            of(&self.times, 0.5),
            of(&self.times, 0.99),
            self.floor_name,
            of(&self.floor, 0.5),
            of(&self.floor, 0.99),
        )
    }
}

/// Nanoseconds since `start`, for a histogram.
#[must_use]
pub fn nanos_since(start: std::time::Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
