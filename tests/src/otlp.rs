//! Where spans are exported to: an OTLP receiver that keeps what it is sent.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

pub use opentelemetry_proto::tonic::trace::v1::Span;

use crate::canary;

/// A span and the service that sent it.
#[derive(Clone, Debug)]
pub struct Exported {
    /// The name of the process, such as `flydex-server`.
    pub service: String,
    /// The span.
    pub span: Span,
}

/// A receiver on a free port of this computer. When it is dropped, nothing that was planted may be in its spans.
pub struct Sink {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Exported>>>,
    /// What processes say of themselves, printed.
    resources: Arc<Mutex<BTreeSet<String>>>,
    _running: DropGuard,
}

impl Sink {
    /// Starts it.
    ///
    /// # Errors
    /// When no port is free.
    pub fn start() -> anyhow::Result<Self> {
        let incoming = TcpIncoming::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let address = incoming.local_addr()?;
        let (spans, resources) = (Arc::default(), Arc::default());
        let stop = CancellationToken::new();
        let service =
            TraceServiceServer::new(Receiver { spans: Arc::clone(&spans), resources: Arc::clone(&resources) });
        let serving = Server::builder().add_service(service);
        tokio::spawn(serving.serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned()));
        Ok(Self { address, spans, resources, _running: stop.drop_guard() })
    }

    /// The endpoint to export to.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every span so far.
    #[must_use]
    pub fn spans(&self) -> Vec<Exported> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let mut problems = Vec::new();
        for Exported { service, span } in self.spans() {
            // With its attributes, events and links.
            let found = canary::found_in(format!("{span:?}").as_bytes());
            problems.extend(found.into_iter().map(|what| format!("{} of {service} holds a {what}", span.name)));
        }
        let resources = self.resources.lock().unwrap_or_else(PoisonError::into_inner);
        for resource in resources.iter() {
            problems
                .extend(canary::found_in(resource.as_bytes()).iter().map(|what| format!("{resource} holds a {what}")));
        }
        canary::report("the exported spans", &problems);
    }
}

struct Receiver {
    spans: Arc<Mutex<Vec<Exported>>>,
    resources: Arc<Mutex<BTreeSet<String>>>,
}

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        for resource_spans in request.into_inner().resource_spans {
            let resource = format!("{:?}", resource_spans.resource);
            self.resources.lock().unwrap_or_else(PoisonError::into_inner).insert(resource);
            let service = service_of(resource_spans.resource.as_ref());
            let exported = resource_spans.scope_spans.into_iter().flat_map(|scope| scope.spans);
            spans.extend(exported.map(|span| Exported { service: service.clone(), span }));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn service_of(resource: Option<&opentelemetry_proto::tonic::resource::v1::Resource>) -> String {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;

    let attributes = resource.map_or(&[][..], |resource| &resource.attributes);
    let named = attributes.iter().find(|attribute| attribute.key == "service.name");
    match named.and_then(|attribute| attribute.value.as_ref()).and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(name)) => name.clone(),
        _ => String::new(),
    }
}
