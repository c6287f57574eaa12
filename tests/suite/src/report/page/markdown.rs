// SPDX-License-Identifier: MIT OR Apache-2.0
//! Markdown of the project's own reports as HTML.

use maud::{Markup, PreEscaped};
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd, html};

/// The body of a report: without its title, raw HTML, and links, which lead to files beside it.
pub fn body(text: &str) -> Markup {
    let mut in_title = false;
    let events = Parser::new_ext(text, Options::ENABLE_TABLES).filter(|event| match event {
        Event::Start(Tag::Heading { .. }) => {
            in_title = true;
            false
        }
        Event::End(TagEnd::Heading(_)) => {
            in_title = false;
            false
        }
        Event::Html(_) | Event::InlineHtml(_) => false,
        Event::Start(Tag::Link { .. } | Tag::Image { .. } | Tag::HtmlBlock) => false,
        Event::End(TagEnd::Link | TagEnd::Image | TagEnd::HtmlBlock) => false,
        _ => !in_title,
    });
    let mut body = String::new();
    html::push_html(&mut body, events);
    PreEscaped(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_text_and_its_form_are_left() {
        let text = "<!-- a -->\n# 01: Title\n\nA [link](x.md), `a<b` and <b>HTML</b>.\n";
        assert_eq!(
            body(text).into_string(),
            "<p>A link, <code>a&lt;b</code> and HTML.</p>\n"
        );
    }
}
