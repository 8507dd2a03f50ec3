//! The trace exporter, on a runtime of its own.
//!
//! The exporter's connection lives on the runtime that it was made on. A process installs telemetry before its own
//! runtime and sends the last spans after that has ended, so neither end may depend on it.

use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::{Builder, Runtime};

use super::TelemetryError;

/// The provider of tracers whose spans are sent in batches, and what carries them.
#[derive(Debug)]
pub(super) struct TraceExport {
    provider: SdkTracerProvider,
    runtime: Option<Runtime>,
}

impl TraceExport {
    pub(super) fn start(endpoint: &str, resource: Resource) -> Result<Self, TelemetryError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("trace-export")
            .enable_all()
            .build()
            .map_err(TelemetryError::Runtime)?;
        let exporter = {
            let _entered = runtime.enter();
            SpanExporter::builder().with_tonic().with_endpoint(endpoint).build()?
        };
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
        Ok(Self { provider, runtime: Some(runtime) })
    }

    pub(super) const fn provider(&self) -> &SdkTracerProvider {
        &self.provider
    }
}

impl Drop for TraceExport {
    fn drop(&mut self) {
        // Not awaited: a drop may happen on another runtime, where blocking panics.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
