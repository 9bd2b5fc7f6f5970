//! The part of SVG that the pictures need.

use std::fmt::Write;

/// Picture that is being drawn.
#[derive(Debug, Default)]
pub(super) struct Svg {
    body: String,
}

/// Place of a text's anchor.
#[derive(Debug, Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// Style of a text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Font {
    pub(super) size: f64,
    pub(super) colour: &'static str,
    pub(super) is_bold: bool,
}

pub(super) const INK: &str = "#1f2933";
pub(super) const FAINT: &str = "#7b8794";
pub(super) const GRID: &str = "#e4e7eb";
const PAPER: &str = "#ffffff";

pub(super) const TITLE: Font = Font { size: 20.0, colour: INK, is_bold: true };
pub(super) const HEADING: Font = Font { size: 13.0, colour: INK, is_bold: true };
pub(super) const LABEL: Font = Font { size: 12.0, colour: INK, is_bold: false };
pub(super) const SMALL: Font = Font { size: 11.0, colour: FAINT, is_bold: false };

impl Svg {
    pub(super) fn text(&mut self, at: (f64, f64), anchor: Anchor, font: Font, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let Font { size, colour, is_bold } = font;
        let weight = if is_bold { " font-weight=\"600\"" } else { "" };
        let ((x, y), text) = (at, escaped(text));
        let _ = writeln!(
            self.body,
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" font-size="{size}" fill="{colour}"{weight}>{text}</text>"#
        );
    }

    pub(super) fn rect(&mut self, at: (f64, f64), size: (f64, f64), colour: &str) {
        let ((x, y), (width, height)) = (at, size);
        let _ = writeln!(
            self.body,
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" rx="2" fill="{colour}"/>"#
        );
    }

    /// Draws a line through all of these points.
    pub(super) fn line(&mut self, points: &[(f64, f64)], width: f64, colour: &str) {
        let points: Vec<_> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            self.body,
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="{width}" stroke-linejoin="round"/>"#,
            points.join(" ")
        );
    }

    pub(super) fn dot(&mut self, at: (f64, f64), colour: &str) {
        let (x, y) = at;
        let _ = writeln!(self.body, r#"<circle cx="{x:.1}" cy="{y:.1}" r="3" fill="{colour}"/>"#);
    }

    /// Returns the whole file.
    pub(super) fn finish(self, width: f64, height: f64, description: &str) -> String {
        let (body, description) = (self.body, escaped(description));
        format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0} {height:.0}" width="{width:.0}" height="{height:.0}" role="img" font-family="system-ui, 'Segoe UI', Helvetica, Arial, sans-serif">
<title>{description}</title>
<rect width="100%" height="100%" fill="{PAPER}"/>
{body}</svg>
"#
        )
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_be_taken_for_markup() {
        let mut svg = Svg::default();
        svg.text((1.0, 2.0), Anchor::Middle, LABEL, "a<b> & \"c\"");
        let file = svg.finish(10.0, 20.0, "x & y");
        assert!(file.contains(">a&lt;b&gt; &amp; &quot;c&quot;</text>"), "{file}");
        assert!(file.contains("<title>x &amp; y</title>"), "{file}");
    }
}
