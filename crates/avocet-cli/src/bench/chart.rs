//! A run as a picture: rates and latencies over time, and latency by percentile.

use std::fmt::{self, Write as _};

use crate::bench::histogram::Histogram;
use crate::bench::report::{Point, number, time};

const WIDTH: f64 = 960.0;
const PANEL: f64 = 230.0;
/// Room beside and above the plot of a panel.
const LEFT: f64 = 84.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 34.0;
/// Room for the heading of the picture.
const HEADING: f64 = 56.0;

/// Lines are told apart by colour and by their names at the top, in both schemes.
const STYLE: &str = "\
svg { color-scheme: light dark; background: #fff; font: 13px system-ui, sans-serif }
text { fill: #333 } .title { font-weight: 600 } .grid { stroke: #ddd } .axis { stroke: #999 }
.warm { fill: #f2f2f2 } path { fill: none; stroke-width: 1.8; stroke-linejoin: round }
.a { stroke: #888 } .b { stroke: #1769aa } .c { stroke: #c26a00 } .d { stroke: #b3261e }
text.a { fill: #666 } text.b { fill: #1769aa } text.c { fill: #c26a00 } text.d { fill: #b3261e }
text.a, text.b, text.c, text.d { stroke: none }
@media (prefers-color-scheme: dark) {
svg { background: #16181c } text { fill: #ddd } .grid { stroke: #333 } .axis { stroke: #777 }
.warm { fill: #202329 }
.a { stroke: #999 } .b { stroke: #6cb6ff } .c { stroke: #f0a04b } .d { stroke: #ff7b72 }
text.a { fill: #aaa } text.b { fill: #6cb6ff } text.c { fill: #f0a04b } text.d { fill: #ff7b72 }
}
";

/// What a picture shows.
pub(crate) struct Picture<'a> {
    pub(crate) title: String,
    pub(crate) subtitle: String,
    pub(crate) points: &'a [Point],
    pub(crate) latency: &'a Histogram,
    /// Until PUBACK or PUBCOMP.
    pub(crate) acknowledged: (&'static str, &'a Histogram),
}

/// A line of a panel.
struct Line {
    class: char,
    name: String,
    points: Vec<(f64, f64)>,
}

/// How values become places, and which of them are marked.
struct Scale {
    from: f64,
    to: f64,
    is_logarithmic: bool,
    marks: Vec<(f64, String)>,
}

impl Scale {
    fn place(&self, value: f64) -> f64 {
        let share = |value: f64| (value - self.from) / (self.to - self.from);
        if self.is_logarithmic {
            let (from, to) = (self.from.ln(), self.to.ln());
            ((value.max(self.from).ln() - from) / (to - from)).clamp(0.0, 1.0)
        } else {
            share(value).clamp(0.0, 1.0)
        }
    }

    /// From zero, with about five marks at round numbers.
    fn linear(largest: f64, text: impl Fn(f64) -> String) -> Self {
        let step = round_step(largest / 5.0);
        let count = (largest / step).ceil().max(1.0);
        Self {
            from: 0.0,
            to: count * step,
            is_logarithmic: false,
            marks: (0..=count as u32)
                .map(|mark| f64::from(mark) * step)
                .map(|value| (value, text(value)))
                .collect(),
        }
    }

    /// Whole powers of ten of nanoseconds.
    fn of_times(values: impl Iterator<Item = f64> + Clone) -> Self {
        let smallest = values.clone().filter(|value| *value > 0.0);
        let smallest = smallest.fold(f64::INFINITY, f64::min);
        let largest = values.fold(1.0, f64::max);
        let low = smallest.min(largest).log10().floor();
        let high = largest.log10().ceil().max(low + 1.0);
        Self {
            from: 10_f64.powf(low),
            to: 10_f64.powf(high),
            is_logarithmic: true,
            marks: (low as i32..=high as i32)
                .map(|power| 10_f64.powi(power))
                .map(|value| (value, whole_time(value)))
                .collect(),
        }
    }
}

/// The next of 1, 2, 5, 10, 20 and so on.
fn round_step(value: f64) -> f64 {
    let value = value.max(1e-6);
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|step| step * power)
        .into_iter()
        .find(|step| *step >= value * 0.999)
        .unwrap_or(10.0 * power)
}

/// A power of ten of nanoseconds without digits behind the point.
fn whole_time(nanoseconds: f64) -> String {
    match nanoseconds {
        ..1e3 => format!("{nanoseconds:.0} ns"),
        1e3..1e6 => format!("{:.0} us", nanoseconds / 1e3),
        1e6..1e9 => format!("{:.0} ms", nanoseconds / 1e6),
        _ => format!("{:.0} s", nanoseconds / 1e9),
    }
}

impl Picture<'_> {
    /// The picture as SVG, which needs nothing else.
    pub(crate) fn svg(&self) -> String {
        let mut svg = String::new();
        // Writing to a string does not fail.
        let _ = self.draw(&mut svg);
        svg
    }

    /// The picture and the table as a page.
    pub(crate) fn html(&self, table: &str) -> String {
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n<title>{}</title>\n\
             <style>:root {{ color-scheme: light dark }} body {{ max-width: 60rem; margin: 2rem \
             auto; padding: 0 1rem }} svg {{ width: 100%; height: auto }} pre {{ overflow-x: auto \
             }}</style>\n{}\n<pre>{}</pre>\n</html>\n",
            escaped(&self.title),
            self.svg(),
            escaped(table)
        )
    }

    fn draw(&self, svg: &mut String) -> fmt::Result {
        let height = HEADING + 3.0 * PANEL;
        writeln!(
            svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             role=\"img\">\n<title>{}</title>\n<style>\n{STYLE}</style>",
            escaped(&self.title)
        )?;
        writeln!(
            svg,
            "<text class=\"title\" x=\"16\" y=\"24\" font-size=\"16\">{}</text>\n\
             <text x=\"16\" y=\"44\">{}</text>",
            escaped(&self.title),
            escaped(&self.subtitle)
        )?;
        let over_time = |class, name: &str, value: fn(&Point) -> f64| Line {
            class,
            name: name.into(),
            points: self
                .points
                .iter()
                .map(|point| ((point.begin + point.end) / 2.0, value(point)))
                .collect(),
        };
        let rates = [
            over_time('a', "sent", |point| point.sent_per_second),
            over_time('b', "received", |point| point.received_per_second),
        ];
        let latencies = [
            over_time('b', "p50", |point| point.p50 as f64),
            over_time('c', "p99", |point| point.p99 as f64),
            over_time('d', "max", |point| point.max as f64),
        ];
        let seconds = self.seconds();
        let per_second = Scale::linear(largest(&rates), |value| number(value as u64));
        panel(svg, 0, "messages per second", &seconds, &per_second, &rates)?;
        let times = Scale::of_times(values(&latencies));
        panel(svg, 1, "latency over time", &seconds, &times, &latencies)?;
        let (name, acknowledged) = self.acknowledged;
        let curves: Vec<_> = [('b', "end to end", self.latency), ('c', name, acknowledged)]
            .into_iter()
            .filter(|(_, _, histogram)| histogram.total() > 0)
            .map(|(class, name, histogram)| Line {
                class,
                name: format!("{name}, max {}", time(histogram.max())),
                points: curve(histogram),
            })
            .collect();
        let times = Scale::of_times(values(&curves));
        panel(
            svg,
            2,
            "latency by percentile",
            &percentiles(&curves),
            &times,
            &curves,
        )?;
        writeln!(svg, "</svg>")
    }

    fn seconds(&self) -> Scale {
        let last = self
            .points
            .iter()
            .map(|point| point.end)
            .fold(1.0, f64::max);
        let first = self
            .points
            .iter()
            .map(|point| point.begin)
            .fold(0.0, f64::min);
        let scale = Scale::linear(last, |value| format!("{value} s"));
        Scale {
            from: first,
            to: last,
            marks: scale
                .marks
                .into_iter()
                .filter(|(value, _)| *value <= last)
                .collect(),
            ..scale
        }
    }
}

fn values(lines: &[Line]) -> impl Iterator<Item = f64> + Clone {
    lines
        .iter()
        .flat_map(|line| line.points.iter().map(|(_, value)| *value))
}

fn largest(lines: &[Line]) -> f64 {
    values(lines).fold(1.0, f64::max)
}

/// Latency by how rare it is: one of `x` messages is slower.
fn curve(histogram: &Histogram) -> Vec<(f64, f64)> {
    let total = histogram.total() as f64;
    // Twenty for each power of ten.
    (0..)
        .map(|step| 10_f64.powf(f64::from(step) / 20.0))
        .take_while(|rarity| *rarity <= total.max(2.0))
        .map(|rarity| (rarity, histogram.quantile(1.0 - 1.0 / rarity) as f64))
        .collect()
}

fn percentiles(curves: &[Line]) -> Scale {
    let ends = curves.iter().filter_map(|line| line.points.last());
    let to = ends.map(|(rarity, _)| *rarity).fold(10.0, f64::max);
    let marks = [
        (2.0, "p50"),
        (10.0, "p90"),
        (100.0, "p99"),
        (1e3, "p99.9"),
        (1e4, "p99.99"),
        (1e5, "p99.999"),
        (1e6, "p99.9999"),
    ];
    Scale {
        from: 1.0,
        to,
        is_logarithmic: true,
        marks: marks
            .into_iter()
            .filter(|(rarity, _)| *rarity <= to)
            .map(|(rarity, name)| (rarity, name.into()))
            .collect(),
    }
}

fn panel(
    svg: &mut String,
    place: u8,
    title: &str,
    across: &Scale,
    up: &Scale,
    lines: &[Line],
) -> fmt::Result {
    let top = HEADING + f64::from(place) * PANEL;
    let (left, right) = (LEFT, WIDTH - RIGHT);
    let (above, below) = (top + TOP, top + PANEL - BOTTOM);
    let x = |value: f64| left + across.place(value) * (right - left);
    let y = |value: f64| below - up.place(value) * (below - above);
    writeln!(
        svg,
        "<text class=\"title\" x=\"16\" y=\"{:.0}\">{title}</text>",
        top + 22.0
    )?;
    let mut name_at = left + 130.0;
    for line in lines {
        writeln!(
            svg,
            "<text class=\"{}\" x=\"{name_at:.0}\" y=\"{:.0}\">{}</text>",
            line.class,
            top + 22.0,
            escaped(&line.name)
        )?;
        name_at += 24.0 + 7.5 * line.name.len() as f64;
    }
    if across.from < 0.0 {
        writeln!(
            svg,
            "<rect class=\"warm\" x=\"{left:.1}\" y=\"{above:.1}\" width=\"{:.1}\" \
             height=\"{:.1}\"><title>warm-up</title></rect>",
            x(0.0) - left,
            below - above
        )?;
    }
    for (value, text) in &up.marks {
        let at = y(*value);
        writeln!(
            svg,
            "<line class=\"grid\" x1=\"{left:.1}\" x2=\"{right:.1}\" y1=\"{at:.1}\" \
             y2=\"{at:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
            left - 8.0,
            at + 4.0
        )?;
    }
    for (value, text) in &across.marks {
        let at = x(*value);
        writeln!(
            svg,
            "<line class=\"axis\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{below:.1}\" \
             y2=\"{:.1}\"/><text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
            below + 4.0,
            below + 18.0
        )?;
    }
    for line in lines {
        write!(svg, "<path class=\"{}\" d=\"", line.class)?;
        for (index, (across, up)) in line.points.iter().enumerate() {
            let letter = if index == 0 { 'M' } else { 'L' };
            write!(svg, "{letter}{:.1} {:.1}", x(*across), y(*up))?;
        }
        writeln!(svg, "\"><title>{}</title></path>", escaped(&line.name))?;
    }
    Ok(())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round() {
        let steps = [0.7, 1.0, 1.2, 33.0, 6_000.0].map(round_step);
        assert_eq!(steps, [1.0, 1.0, 2.0, 50.0, 10_000.0]);
    }

    #[test]
    fn scales_hold_their_values() {
        let scale = Scale::linear(123_456.0, |value| number(value as u64));
        assert_eq!((scale.from, scale.to), (0.0, 150_000.0));
        assert_eq!(scale.marks.last().unwrap().1, "150,000");
        let scale = Scale::of_times([2_500.0, 7e7].into_iter());
        assert_eq!((scale.from, scale.to), (1e3, 1e8));
        let marks: Vec<_> = scale.marks.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(
            marks,
            ["1 us", "10 us", "100 us", "1 ms", "10 ms", "100 ms"]
        );
        assert_eq!((scale.place(1e3), scale.place(1e8)), (0.0, 1.0));
        assert!((scale.place(1e5) - 0.4).abs() < 1e-9);
    }

    #[test]
    fn a_run_without_messages_has_a_picture_too() {
        let nothing = Histogram::default();
        let picture = Picture {
            title: "a < b".into(),
            subtitle: String::new(),
            points: &[],
            latency: &nothing,
            acknowledged: ("PUBACK", &nothing),
        };
        let svg = picture.svg();
        assert!(svg.contains("a &lt; b") && !svg.contains("NaN") && !svg.contains("inf"));
        assert!(picture.html("x & y").contains("<pre>x &amp; y</pre>"));
    }
}
