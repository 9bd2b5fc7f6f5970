//! What stands in flags: endpoints are written and read again as they were, nothing else panics.

use tradewind_lanes::Endpoint;
use tradewind_proto::dispatcher::Halt;
use tradewind_text::Colsep;
use tradewind_handlers::TermSeq;

pub fn text(mut data: &[u8]) {
    let kind = super::byte(&mut data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    match kind % 4 {
        0 => {
            if let Ok(endpoint) = text.parse::<Endpoint>() {
                let written = endpoint.to_string();
                assert_eq!(written.parse::<Endpoint>().as_ref(), Ok(&endpoint), "{written}");
                assert!(endpoint.tcp().is_none_or(|tcp| !tcp.host().is_empty()));
            }
        }
        1 => {
            if let Ok(colsep) = text.parse::<Colsep>() {
                assert!(colsep.split(b"a,b;c d\te").count() > 0);
            }
        }
        2 => {
            let _ = (text.parse::<Halt>(), text.parse::<TermSeq>());
        }
        _ => {
            let _ = (
                tradewind_text::duration_or_zero(text),
                tradewind_text::size(text),
                tradewind_text::name(text),
            );
            if let Ok(duration) = tradewind_text::duration(text) {
                assert!(!duration.is_zero());
            }
            let _ = tradewind_text::timeout(text);
        }
    }
}
