//! The page, in one piece: nothing of it comes from elsewhere.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::digest::{SHA256, digest};

const STYLE: &str = include_str!("../page/page.css");
const BODY: &str = include_str!("../page/page.html");
const SCRIPT: &str = include_str!("../page/page.js");

const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 26 20'%3E%3Cpath \
                    d='M1 7h13a3 3 0 1 0-2.6-4.5M1 12h20a3 3 0 1 1-2.6 4.5M4 17h7' fill='none' stroke='%230d7377' \
                    stroke-width='2.4' stroke-linecap='round'/%3E%3C/svg%3E";

/// The page, and what it may do.
pub(crate) struct Page {
    pub(crate) html: String,
    /// Its content security policy: its own style and script, by their hashes, and requests to where it came from.
    pub(crate) policy: String,
}

/// The page.
pub(crate) static PAGE: LazyLock<Page> = LazyLock::new(|| {
    let (style, script) = (format!("\n{STYLE}"), format!("\n{SCRIPT}"));
    let html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\">\n<title>Tradewind</title>\n<link rel=\"icon\" \
         href=\"{ICON}\">\n<style>{style}</style>\n<body>\n{BODY}<script>{script}</script>\n</body>\n</html>\n"
    );
    let policy = format!(
        "default-src 'none'; style-src {}; script-src {}; img-src data:; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash(&style),
        hash(&script)
    );
    Page { html, policy }
});

fn hash(text: &str) -> String {
    format!("'sha256-{}'", BASE64_STANDARD.encode(digest(&SHA256, text.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_one_small_file_that_needs_no_other() {
        let html = &PAGE.html;
        assert!(html.len() <= 60_000, "{} bytes", html.len());
        for foreign in ["http://", "https://", "src=", "@import", "url("] {
            let found = html.matches(foreign).count();
            // The names of SVG's namespace are no addresses.
            let names = html.matches("http://www.w3.org/").count();
            assert_eq!(found, if foreign == "http://" { names } else { 0 }, "{foreign}");
        }
    }
}
