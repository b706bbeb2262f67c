//! The picture itself: axes, cells, legend.
//!
//! Colours are those of light paper; [`STYLE`] turns them into those of a dark screen where the reader prefers it, colour by colour, so that the picture is right also where nobody heeds styles.
//! The palette is that of Okabe and Ito (2008), which those who confuse red and green tell apart.

use plotters::{
    coord::Shift,
    prelude::{
        AreaSeries, ChartBuilder, DrawingArea, IntoDrawingArea, IntoFont, RGBColor, Rectangle, SVGBackend, Text,
        TextStyle,
    },
    style::Color,
};

use super::{
    MOST_PROCESSES, PlotError,
    extent::{Panel, Plan},
    grid::{COLUMNS, Grid, Grids, Layer, ROWS, Run},
};
use crate::units::{ByteCount, printable};

const PAPER: RGBColor = RGBColor(255, 255, 255);
const INK: RGBColor = RGBColor(34, 34, 34);
const FAINT: RGBColor = RGBColor(221, 221, 221);
const WARMED: RGBColor = RGBColor(250, 216, 140);
const MISSED: RGBColor = RGBColor(240, 150, 130);
const THERE: RGBColor = RGBColor(190, 200, 210);

/// Processes, the busiest first; the last is that of all others.
const PROCESSES: [RGBColor; MOST_PROCESSES + 1] = [
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(213, 94, 0),
    RGBColor(86, 180, 233),
    RGBColor(120, 94, 240),
    RGBColor(140, 110, 30),
    RGBColor(120, 120, 120),
];

/// What makes the same picture readable on a dark screen.
pub const STYLE: &str = "\
@media (prefers-color-scheme: dark) {
  svg [fill=\"#FFFFFF\"] { fill: #16191d }
  svg [fill=\"#222222\"] { fill: #e4e6e8 } svg [stroke=\"#222222\"] { stroke: #e4e6e8 }
  svg [fill=\"#DDDDDD\"] { fill: #343a40 } svg [stroke=\"#DDDDDD\"] { stroke: #343a40 }
  svg [fill=\"#FAD88C\"] { fill: #94731d } svg [fill=\"#F09682\"] { fill: #b04a35 }
  svg [fill=\"#BEC8D2\"] { fill: #46525e }
  svg [fill=\"#0072B2\"] { fill: #4ba9e0 } svg [fill=\"#009E73\"] { fill: #2fc79a }
  svg [fill=\"#D55E00\"] { fill: #f28b40 } svg [fill=\"#785EF0\"] { fill: #a48ff7 }
  svg [fill=\"#8C6E1E\"] { fill: #c8a94e } svg [fill=\"#787878\"] { fill: #a5a5a5 }
}
";

const WIDTH: u32 = 1180;
/// Title and legend.
const HEAD: u32 = 92;
/// Of one file: its name and its cells; how much of it is there; the gap to the next.
const CELLS: u32 = 240;
const THERE_HEIGHT: u32 = 104;
const GAP: u32 = 20;
/// Left of the axes.
const LABELS: u32 = 84;

type Area<'a, 'b> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws.
///
/// # Errors
/// [`PlotError::Drawing`].
pub fn draw(grids: &Grids, title: &str) -> Result<String, PlotError> {
    let plan = grids.plan();
    let panels = u32::try_from(plan.panels.len()).unwrap_or(1);
    let height = HEAD + panels * (CELLS + THERE_HEIGHT + GAP) + 8;
    let mut svg = String::new();
    {
        let page = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        page.fill(&PAPER).map_err(failed)?;
        head(&page, plan, title)?;
        let (_, mut rest) = page.split_vertically(HEAD);
        for (number, panel) in plan.panels.iter().enumerate() {
            let (cells, below) = rest.split_vertically(CELLS);
            let (there, below) = below.split_vertically(THERE_HEIGHT);
            (_, rest) = below.split_vertically(GAP);
            file(&cells, grids, number, panel)?;
            residency(&there, grids, number, panel)?;
        }
        page.present().map_err(failed)?;
    }
    // Inside the picture, so that it holds where the picture goes.
    let style = format!("<style>\n{STYLE}</style>\n");
    match svg.find('>') {
        Some(end) => svg.insert_str(end + 1, &style),
        None => return Err(PlotError::Drawing("nothing was drawn".into())),
    }
    Ok(svg)
}

fn failed(error: impl std::fmt::Display) -> PlotError {
    PlotError::Drawing(error.to_string())
}

fn text(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

fn label(area: &Area<'_, '_>, words: &str, at: (i32, i32), size: u32) -> Result<(), PlotError> {
    area.draw(&Text::new(words.to_owned(), at, text(size))).map_err(failed)
}

fn head(area: &Area<'_, '_>, plan: &Plan, title: &str) -> Result<(), PlotError> {
    label(area, &printable(title), (12, 10), 19)?;
    let mut entries: Vec<(String, RGBColor)> = plan
        .processes
        .iter()
        .zip(PROCESSES)
        .map(|((process, program), color)| {
            let program = printable(program.as_deref().unwrap_or("process"));
            (format!("{program} [{process}]"), color)
        })
        .collect();
    if plan.others {
        entries.push(("others".into(), PROCESSES[MOST_PROCESSES]));
    }
    entries.push(("brought in for the reader (misses, readahead)".into(), MISSED));
    entries.push(("warmed by the agent".into(), WARMED));
    let (mut x, mut y) = (12, 42);
    for (words, color) in entries {
        // About as wide as the letters are.
        let width = 30 + i32::try_from(words.chars().count()).unwrap_or(0) * 7;
        if x + width > WIDTH.cast_signed() && x > 12 {
            (x, y) = (12, y + 20);
        }
        area.draw(&Rectangle::new([(x, y + 1), (x + 12, y + 13)], color.filled()))
            .map_err(failed)?;
        label(area, &words, (x + 18, y), 14)?;
        x += width;
    }
    if plan.left_out > 0 {
        let words = format!("{} more files were read and are not drawn", plan.left_out);
        label(area, &words, (12, y + 22), 13)?;
    }
    Ok(())
}

/// A unit in which an axis of so many bytes has short numbers.
fn unit(size: u64) -> (f64, &'static str) {
    match size {
        size if size >= 1 << 30 => ((1u64 << 30) as f64, "GiB"),
        size if size >= 1 << 20 => ((1u64 << 20) as f64, "MiB"),
        size if size >= 1 << 10 => (1024.0, "KiB"),
        _ => (1.0, "B"),
    }
}

fn file(area: &Area<'_, '_>, grids: &Grids, number: usize, panel: &Panel) -> Result<(), PlotError> {
    let plan = grids.plan();
    let seconds = plan.to.since(plan.from).as_secs_f64();
    let (scale, name) = unit(panel.size);
    let top = panel.size as f64 / scale;
    let title = format!("{} ({})", shortened(&printable(&panel.path)), ByteCount(panel.size));
    label(area, &title, (LABELS.cast_signed(), 2), 15)?;
    let mut chart = ChartBuilder::on(area)
        .margin_top(24)
        .margin_right(20)
        .x_label_area_size(4)
        .y_label_area_size(LABELS)
        .build_cartesian_2d(0.0..seconds, 0.0..top)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .max_light_lines(0)
        .bold_line_style(FAINT)
        .axis_style(INK)
        .x_labels(10)
        .y_labels(5)
        .x_label_formatter(&|_| String::new())
        .y_label_formatter(&|value| format!("{} {name}", digits(*value, top)))
        .label_style(text(13))
        .draw()
        .map_err(failed)?;
    let Some(layers) = grids.layers.get(number) else {
        return Ok(());
    };
    let mut layers: Vec<(&Layer, &Grid)> = layers.iter().collect();
    layers.sort_by_key(|(layer, _)| **layer);
    for (layer, grid) in layers {
        let (color, halo) = match layer {
            Layer::Warmed => (WARMED, 1.0),
            Layer::Missed => (MISSED, 1.5),
            Layer::Accessed(process) => (PROCESSES[(*process).min(MOST_PROCESSES)], 0.4),
        };
        let runs = grid.runs();
        let marks = runs
            .iter()
            .map(|run| Rectangle::new(corners(run, halo, seconds, top), color.filled()));
        chart.draw_series(marks).map_err(failed)?;
    }
    Ok(())
}

/// A run of cells in the units of the axes, `halo` cells larger on each side: what lies behind another mark is still seen around it.
fn corners(run: &Run, halo: f64, seconds: f64, top: f64) -> [(f64, f64); 2] {
    let x = |column: f64| (column / COLUMNS as f64).clamp(0.0, 1.0) * seconds;
    let y = |row: f64| (row / ROWS as f64).clamp(0.0, 1.0) * top;
    [
        (x(run.from as f64 - halo), y(run.bottom as f64 - halo)),
        (x(run.to as f64 + halo), y(run.top as f64 + halo)),
    ]
}

fn residency(area: &Area<'_, '_>, grids: &Grids, number: usize, panel: &Panel) -> Result<(), PlotError> {
    let plan = grids.plan();
    let seconds = plan.to.since(plan.from).as_secs_f64();
    let (scale, name) = unit(panel.size);
    let Some(there) = grids.there.get(number) else {
        return Ok(());
    };
    let most = there.iter().copied().fold(panel.size as f64, f64::max) / scale;
    label(
        area,
        "came into the page cache, less what has left it",
        (LABELS.cast_signed(), 4),
        13,
    )?;
    let mut chart = ChartBuilder::on(area)
        .margin_top(22)
        .margin_right(20)
        .x_label_area_size(32)
        .y_label_area_size(LABELS)
        .build_cartesian_2d(0.0..seconds, 0.0..most)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .max_light_lines(0)
        .bold_line_style(FAINT)
        .axis_style(INK)
        .x_labels(10)
        .y_labels(2)
        .x_desc("seconds")
        .x_label_formatter(&|value| digits(*value, seconds))
        .y_label_formatter(&|value| format!("{} {name}", digits(*value, most)))
        .label_style(text(13))
        .draw()
        .map_err(failed)?;
    let points = there
        .iter()
        .enumerate()
        .map(|(column, bytes)| ((column as f64 + 0.5) / COLUMNS as f64 * seconds, bytes / scale));
    chart
        .draw_series(AreaSeries::new(points, 0.0, THERE.filled()))
        .map_err(failed)?;
    Ok(())
}

/// A number with as many digits as tell the marks of an axis up to `most` apart.
fn digits(value: f64, most: f64) -> String {
    match most {
        most if most >= 50.0 => format!("{value:.0}"),
        most if most >= 5.0 => format!("{value:.1}"),
        most if most >= 0.5 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// The end of a long path, which says what it is.
fn shortened(path: &str) -> String {
    const MOST: usize = 110;
    let count = path.chars().count();
    if count <= MOST {
        return path.to_owned();
    }
    let end: String = path.chars().skip(count - MOST + 1).collect();
    format!("…{end}")
}
