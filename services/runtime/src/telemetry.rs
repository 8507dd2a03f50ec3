//! Logs, traces and metrics, set up once in each process, and what is told of a panic.
//!
//! Logs go to standard error, one event a line. Only [`fields::DECLARED`] fields are written and only FlyDex's own
//! targets below WARN, so that neither a stray field nor a library's trace line can carry content. Traces go to
//! an OTLP endpoint when one is given. Metrics are read from [`Telemetry::prometheus_text`].

mod export;
pub mod fields;
pub mod log;
pub mod panics;
pub mod trace;

use opentelemetry::global;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use prometheus::{Registry, TextEncoder};
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use export::TraceExport;

/// How a process speaks of itself.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// Filter of log events, in `tracing` directives. Default `info`.
    pub log_filter: String,
    /// Shape of log lines. Default `text`.
    pub log_format: LogFormat,
    /// OTLP gRPC endpoint for traces, such as `http://127.0.0.1:4317`. Default none: nothing is exported.
    pub otlp_endpoint: Option<String>,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { log_filter: "info".to_owned(), log_format: LogFormat::Text, otlp_endpoint: None }
    }
}

/// Shape of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Why telemetry could not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not made of directives.
    #[error("parse the log filter")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The exporter could not be built.
    #[error("build the trace exporter")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The exporter's runtime could not be started.
    #[error("start the runtime of the trace exporter")]
    Runtime(#[source] std::io::Error),
    /// The metrics reader could not be built.
    #[error("build the metrics reader")]
    Metrics(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A subscriber is installed already.
    #[error("install the subscriber")]
    Installed(#[from] tracing_subscriber::util::TryInitError),
}

/// The telemetry of this process; dropped last.
#[derive(Debug)]
pub struct Telemetry {
    registry: Registry,
    meters: SdkMeterProvider,
    traces: Option<TraceExport>,
}

impl Telemetry {
    /// Installs logs, traces and metrics for the process called `service`.
    ///
    /// # Errors
    /// Each [`TelemetryError`].
    pub fn install(service: &'static str, config: &TelemetryConfig) -> Result<Self, TelemetryError> {
        panics::install();
        let resource = Resource::builder().with_service_name(service).build();
        let registry = Registry::new();
        let reader = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .build()
            .map_err(|error| TelemetryError::Metrics(error.into()))?;
        let meters = SdkMeterProvider::builder().with_reader(reader).with_resource(resource.clone()).build();
        global::set_meter_provider(meters.clone());
        global::set_text_map_propagator(TraceContextPropagator::new());

        let traces =
            config.otlp_endpoint.as_deref().map(|endpoint| TraceExport::start(endpoint, resource)).transpose()?;
        let tracer = traces.as_ref().map(|traces| {
            let layer = tracing_opentelemetry::layer().with_tracer(traces.provider().tracer(service));
            layer.with_filter(tracing_subscriber::filter::filter_fn(|metadata| log::is_own(metadata.target())))
        });
        let filter: EnvFilter = config.log_filter.parse()?;
        let lines = log::LogLayer::new(config.log_format, std::io::stderr).with_filter(filter);
        tracing_subscriber::registry().with(tracer).with(lines).try_init()?;
        Ok(Self { registry, meters, traces })
    }

    /// Every metric in Prometheus' text format.
    #[must_use]
    pub fn prometheus_text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }

    /// Sends what is still held back, then stops. Failures are ignored: the process ends.
    pub fn shutdown(&self) {
        if let Some(traces) = &self.traces {
            let _ = traces.provider().shutdown();
        }
        let _ = self.meters.shutdown();
    }
}
