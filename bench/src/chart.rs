//! A bar chart for each figure, as SVG: medians as bars, ranges as lines.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::metric::MetricInfo;
use super::results::{FigureInfo, Results};
use super::statistics::{Summary, float};
use super::table::number;

const WIDTH: i32 = 720;
/// Height of what stands above the bars, and of each bar with its space, in pixels.
const HEAD: i32 = 56;
const BAR: i32 = 30;
const BAR_GAP: i32 = 8;
/// Where bars begin and where the longest may end.
const LEFT: i32 = 130;
const RIGHT: i32 = 620;
const FONT: &str = "sans-serif";
const OWN: RGBColor = RGBColor(0x1f, 0x6f, 0xb4);
const OTHER: RGBColor = RGBColor(0x9a, 0xa5, 0xb1);
const RANGE: RGBColor = RGBColor(0x33, 0x33, 0x33);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws all figures into a folder; gives back each figure's id and file.
pub(crate) fn draw_all(results: &Results, folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let mut drawn = Vec::new();
    for figure in &results.figures {
        let Some(metric) = figure.metrics.first() else {
            continue;
        };
        let bars = bars(results, figure, metric);
        if !bars.is_empty() {
            let path = folder.join(format!("{}-{}.svg", results.comparison, figure.id));
            draw(&path, &figure.title, metric, &bars)
                .with_context(|| format!("drawing {}", path.display()))?;
            drawn.push((figure.id.clone(), path));
        }
    }
    Ok(drawn)
}

struct Bar<'a> {
    peer: &'a str,
    value: Summary,
}

fn bars<'a>(results: &'a Results, figure: &FigureInfo, metric: &MetricInfo) -> Vec<Bar<'a>> {
    let peers = results.peers.iter().map(|peer| peer.name.as_str());
    let bar = |peer| {
        let value = results.summary(&figure.id, peer, &metric.id)?;
        Some(Bar { peer, value })
    };
    peers.filter_map(bar).collect()
}

fn draw(path: &Path, title: &str, metric: &MetricInfo, bars: &[Bar<'_>]) -> Result<()> {
    let height = HEAD + BAR * i32::try_from(bars.len())?;
    let size = (WIDTH.unsigned_abs(), (height + BAR_GAP).unsigned_abs());
    let area = SVGBackend::new(path, size).into_drawing_area();
    area.fill(&WHITE).map_err(failed)?;
    let better = if metric.more_is_better {
        "more is better"
    } else {
        "less is better"
    };
    write(&area, (12, 18), title, 17, HPos::Left)?;
    let unit = format!("{} ({better})", metric.label);
    write(&area, (12, 40), &unit, 13, HPos::Left)?;

    let longest = bars.iter().map(|bar| bar.value.max).fold(0.0, f64::max);
    let scale = Scale(longest);
    let mut top = HEAD;
    for bar in bars {
        draw_bar(&area, top, bar, &scale)?;
        top += BAR;
    }
    area.present().map_err(failed)
}

fn draw_bar(area: &Area<'_>, top: i32, one: &Bar<'_>, scale: &Scale) -> Result<()> {
    let (bottom, middle) = (top + BAR - BAR_GAP, top + (BAR - BAR_GAP) / 2);
    let colour = if one.peer.starts_with("gateway") {
        OWN
    } else {
        OTHER
    };
    let end = scale.x(one.value.median);
    let (min, max) = (scale.x(one.value.min), scale.x(one.value.max));
    let rectangle = Rectangle::new([(LEFT, top), (end, bottom)], colour.filled());
    area.draw(&rectangle).map_err(failed)?;
    for line in [
        [(min, middle), (max, middle)],
        [(min, middle - 4), (min, middle + 4)],
        [(max, middle - 4), (max, middle + 4)],
    ] {
        area.draw(&PathElement::new(line, RANGE)).map_err(failed)?;
    }
    write(area, (LEFT - 8, middle), one.peer, 14, HPos::Right)?;
    let text = number(one.value.median);
    write(area, (end.max(max) + 8, middle), &text, 14, HPos::Left)
}

fn write(area: &Area<'_>, at: (i32, i32), text: &str, size: i32, align: HPos) -> Result<()> {
    let style = TextStyle::from((FONT, size)).pos(Pos::new(align, VPos::Center));
    area.draw(&Text::new(text.to_owned(), at, style))
        .map_err(failed)
}

/// From values to pixels; 0 is at the left.
struct Scale(f64);

impl Scale {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the share lies between 0 and 1, so the pixel is within the chart"
    )]
    fn x(&self, value: f64) -> i32 {
        let share = if self.0 > 0.0 {
            (value / self.0).clamp(0.0, 1.0)
        } else {
            0.0
        };
        let width = float(u64::from((RIGHT - LEFT).unsigned_abs()));
        LEFT + (share * width) as i32
    }
}

fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("{error}")
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::sample;
    use super::*;

    #[test]
    fn figures_become_files() {
        let folder = tempfile::tempdir().unwrap();
        let drawn = draw_all(&sample(), folder.path()).unwrap();
        assert_eq!(drawn.len(), 1);
        let svg = fs::read_to_string(&drawn[0].1).unwrap();
        assert!(
            svg.contains("haproxy") && svg.contains("less is better"),
            "{svg}"
        );
    }

    #[test]
    fn bars_stay_within_the_chart() {
        let scale = Scale(2.0);
        assert_eq!(
            (scale.x(0.0), scale.x(2.0), scale.x(-1.0)),
            (LEFT, RIGHT, LEFT)
        );
        assert_eq!(Scale(0.0).x(0.0), LEFT);
    }
}
