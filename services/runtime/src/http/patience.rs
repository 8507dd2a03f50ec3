//! A connection whose peer must begin to speak in time.
//!
//! Until a connection is known to be HTTP/1.1 or HTTP/2 none of their own timeouts holds.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// Bytes by which the two versions are told apart: the preface of HTTP/2.
const TELLING_BYTES: usize = 24;

/// A stream of which the first bytes must come within a time.
pub(super) struct Patience<S> {
    stream: S,
    read: usize,
    /// None once enough was read.
    end: Option<Pin<Box<Sleep>>>,
}

impl<S> Patience<S> {
    pub(super) fn of(stream: S, time: Duration) -> Self {
        Self { stream, read: 0, end: Some(Box::pin(tokio::time::sleep(time))) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patience<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.read = self.read.saturating_add(buffer.filled().len() - before);
        if self.read >= TELLING_BYTES {
            self.end = None;
        }
        let late = read.is_pending() && self.end.as_mut().is_some_and(|end| end.as_mut().poll(context).is_ready());
        if late { Poll::Ready(Err(io::ErrorKind::TimedOut.into())) } else { read }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patience<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_who_says_too_little_is_given_up_and_one_who_speaks_is_not() {
        for said in [0, 1, TELLING_BYTES - 1] {
            let (mut near, far) = tokio::io::duplex(64);
            near.write_all(&vec![b'P'; said]).await.unwrap();
            let mut patience = Patience::of(far, Duration::from_secs(15));
            let ended = patience.read_to_end(&mut Vec::new()).await;
            assert_eq!(ended.map_err(|error| error.kind()).err(), Some(io::ErrorKind::TimedOut), "{said} bytes");
        }
        let (mut near, far) = tokio::io::duplex(64);
        near.write_all(&[b'P'; TELLING_BYTES]).await.unwrap();
        let mut patience = Patience::of(far, Duration::from_secs(15));
        patience.read_exact(&mut [0; TELLING_BYTES]).await.unwrap();
        let later = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            near.write_all(b"later").await.unwrap();
        });
        patience.read_exact(&mut [0; 5]).await.unwrap();
        later.await.unwrap();
    }
}
