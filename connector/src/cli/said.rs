//! What a running connector says on its own about the link, so that nobody has to ask.

use flydex_domain::error::{ErrorCode, Retry};

use super::Problem;
use super::parts::Progress;
use super::screen::Screen;
use crate::control::status::{Binding, carrier, transport_word};
use crate::paired::{LinkStatus, Transport};

impl Progress {
    /// Says each change of the link, with the next step where a person has to act. `plain` is a server that is
    /// reached without TLS.
    pub(super) async fn say(mut self, screen: Screen, plain: bool) {
        let mut said = None;
        loop {
            let link = self.core.borrow_and_update().map(|core| core.link);
            if let Some(news) = link.and_then(|link| News::of(link, said.as_ref()))
                && said.as_ref() != Some(&news)
            {
                screen.line(&news.text(plain));
                said = Some(news);
            }
            if !self.changed().await {
                return;
            }
        }
    }
}

/// What is worth a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Sessions can reach this machine.
    Connected(Transport, bool),
    /// They could, and cannot for now.
    Lost,
    /// They cannot until a person does something.
    Stopped(ErrorCode),
}

impl News {
    /// Failures of the first connection, and repeats of a loss, are no news while trying again may help.
    pub(super) fn of(link: LinkStatus, before: Option<&Self>) -> Option<Self> {
        match (link, before) {
            (LinkStatus::Attached(channel), _) => Some(Self::Connected(channel.transport, channel.bound)),
            (LinkStatus::Down(Some(code)), _) if code.retry() == Retry::Never => Some(Self::Stopped(code)),
            (LinkStatus::Down(_), Some(Self::Connected(..))) => Some(Self::Lost),
            (LinkStatus::Down(_) | LinkStatus::Linked(_), _) => None,
        }
    }

    pub(super) fn text(self, plain: bool) -> String {
        match self {
            Self::Connected(transport, bound) => {
                let binding = Binding::of(bound, plain);
                let next = binding.next_step().map(|next| format!("\n  next: {next}"));
                let over = carrier(transport_word(transport), Some(binding));
                format!("connected over {over}{}", next.unwrap_or_default())
            }
            Self::Lost => "connection lost; trying again".to_owned(),
            Self::Stopped(code) => Problem::of_code(code).text(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paired::Channel;

    fn attached(bound: bool) -> LinkStatus {
        LinkStatus::Attached(Channel { transport: Transport::WebSocket, bound })
    }

    #[test]
    fn a_revoked_machine_is_said_with_the_next_step() {
        let news = News::of(LinkStatus::Down(Some(ErrorCode::MachineRevoked)), None).unwrap();
        let text = news.text(false);
        assert!(text.contains("[machine_revoked]") && text.contains("next: run flydex unpair"), "{text}");
    }

    #[test]
    fn a_link_that_is_not_bound_is_said_and_a_bound_or_plain_one_needs_no_step() {
        let text = |bound, plain| News::of(attached(bound), None).unwrap().text(plain);
        assert!(
            text(false, false).contains("NOT bound")
                && text(false, false).contains("next: let the proxy pass TLS through")
        );
        assert_eq!(text(true, false), "connected over websocket, bound to its TLS connection");
        assert!(text(false, true).contains("not encrypted") && !text(false, true).contains("next:"));
    }

    #[test]
    fn a_loss_is_said_once_and_failed_tries_are_no_news() {
        let down = LinkStatus::Down(Some(ErrorCode::PeerTimeout));
        assert_eq!(News::of(down, None), None);
        let connected = News::of(attached(true), None);
        assert_eq!(News::of(down, connected.as_ref()), Some(News::Lost));
        assert_eq!(News::of(down, Some(&News::Lost)), None);
    }
}
