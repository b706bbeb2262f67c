//! Plots of a bench as SVG: for each device its loaders, each help a bar with its interval and every single load.
//!
//! Colours are few and fixed, so that the page's style sheet can change them for dark screens: text and axes are [`INK`].

use anyhow::{Result, anyhow};
use plotters::{
    prelude::{
        ChartBuilder, Circle, Color, IntoDrawingArea, IntoFont, PathElement, RGBColor, Rectangle, SVGBackend, Text,
    },
    style::text_anchor::{HPos, Pos, VPos},
};

use super::{
    compare::{Cell, Helped},
    plan::{Device, Help},
};

/// Text, axes and single loads.
pub const INK: RGBColor = RGBColor(17, 17, 17);
/// Lines of the grid.
pub const GRID: RGBColor = RGBColor(221, 221, 221);
/// The device's own limit.
pub const LIMIT: RGBColor = RGBColor(204, 51, 51);

/// Pixels, before the page scales it.
const WIDTH: u32 = 860;
/// Of that, what names take on the left, and figures on the right.
const NAMES: i32 = 190;
const FIGURES: u32 = 20;
/// Height of a bar with what is around it, and of what is below all bars.
const BAR: u32 = 30;
const BELOW: u32 = 60;
/// Space between two loaders, in bars.
const GAP: f64 = 0.6;

const fn color(help: Help) -> RGBColor {
    match help {
        Help::None => RGBColor(140, 140, 140),
        Help::Agent => RGBColor(46, 117, 214),
        Help::Vmtouch => RGBColor(214, 126, 44),
        Help::Cat => RGBColor(142, 94, 190),
    }
}

/// One plot for each device, in the order of the cells.
///
/// # Errors
/// The drawing fails.
pub fn plots(cells: &[Cell]) -> Result<Vec<(Device, String)>> {
    let mut devices: Vec<Device> = cells.iter().map(|cell| cell.device).collect();
    devices.dedup();
    let plot = |device: Device| {
        let cells: Vec<&Cell> = cells.iter().filter(|cell| cell.device == device).collect();
        let drawn = draw(&cells).map_err(|error| anyhow!("cannot draw the plot of {}: {error}", device.name()));
        Ok((device, drawn?))
    };
    devices.into_iter().map(plot).collect()
}

fn draw(cells: &[&Cell]) -> Result<String, Box<dyn std::error::Error>> {
    let bars: usize = cells.iter().map(|cell| cell.helped.len()).sum();
    let height = bars as f64 + GAP * cells.len() as f64;
    let values = cells.iter().flat_map(|cell| {
        let loads = cell.helped.iter().flat_map(|helped| &helped.seconds);
        loads.copied().chain(cell.limit)
    });
    let longest = values.fold(0.0, f64::max).max(1e-3) * 1.05;
    let mut svg = String::new();
    {
        let size = (WIDTH, (height * f64::from(BAR)) as u32 + BELOW);
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .margin_top(6)
            .margin_right(FIGURES)
            .x_label_area_size(44)
            .y_label_area_size(NAMES)
            // From above.
            .build_cartesian_2d(0.0..longest, height..0.0)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .y_labels(0)
            .x_labels(8)
            .x_desc("seconds")
            .axis_style(INK)
            .bold_line_style(GRID)
            .light_line_style(GRID.mix(0.0))
            .label_style(("sans-serif", 14).into_font().color(&INK))
            .draw()?;
        let name = |at: f64, offset: i32, text: String| {
            let style = ("sans-serif", 14)
                .into_font()
                .color(&INK)
                .pos(Pos::new(HPos::Right, VPos::Center));
            plotters::prelude::EmptyElement::at((0.0, at)) + Text::new(text, (offset, 0), style)
        };
        let mut top = GAP / 2.0;
        for cell in cells {
            let bottom = top + cell.helped.len() as f64;
            chart.draw_series([name(
                f64::midpoint(top, bottom),
                10 - NAMES + 86,
                cell.loader.name().to_owned(),
            )])?;
            for helped in &cell.helped {
                let middle = top + 0.5;
                chart.draw_series([name(middle, -8, helped.help.name().to_owned())])?;
                bar(&mut chart, helped, top)?;
                top += 1.0;
            }
            if let Some(limit) = cell.limit {
                let line = vec![(limit, bottom - cell.helped.len() as f64), (limit, bottom)];
                chart.draw_series([PathElement::new(line, LIMIT.stroke_width(2))])?;
            }
            top += GAP;
        }
        root.present()?;
    }
    Ok(svg)
}

type Chart<'a, 'b> = plotters::prelude::ChartContext<
    'b,
    SVGBackend<'a>,
    plotters::prelude::Cartesian2d<plotters::coord::types::RangedCoordf64, plotters::coord::types::RangedCoordf64>,
>;

/// The middle as a bar, its interval as a whisker, each load as a dot.
fn bar(chart: &mut Chart<'_, '_>, helped: &Helped, top: f64) -> Result<(), Box<dyn std::error::Error>> {
    let middle = top + 0.5;
    let corners = [(0.0, top + 0.12), (helped.summary.median, top + 0.88)];
    chart.draw_series([Rectangle::new(corners, color(helped.help).filled())])?;
    let (low, high) = (helped.interval.low, helped.interval.high);
    let whisker = [
        vec![(low, middle), (high, middle)],
        vec![(low, middle - 0.25), (low, middle + 0.25)],
        vec![(high, middle - 0.25), (high, middle + 0.25)],
    ];
    chart.draw_series(whisker.map(|line| PathElement::new(line, INK.stroke_width(2))))?;
    let dots = helped
        .seconds
        .iter()
        .map(|&seconds| Circle::new((seconds, middle), 3, INK.stroke_width(1)));
    chart.draw_series(dots)?;
    Ok(())
}

/// What the colours mean, as name and CSS colour.
pub fn legend(helps: &[Help]) -> Vec<(&'static str, String)> {
    let css = |RGBColor(red, green, blue): RGBColor| format!("#{red:02x}{green:02x}{blue:02x}");
    let helps = helps.iter().map(|&help| (help.name(), css(color(help))));
    helps.chain([("the device's own limit", css(LIMIT))]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_has_the_names_and_colours_of_what_was_measured() {
        let plots = plots(&[super::super::compare::tests::cell()]).unwrap();
        let [(Device::Gp3, svg)] = plots.as_slice() else {
            panic!("{plots:?}")
        };
        for wanted in [
            "llama.cpp",
            "vmtouch",
            "agent",
            "seconds",
            "#2E75D6",
            "#CC3333",
            "#111111",
        ] {
            assert!(svg.contains(wanted), "{wanted} is not in {svg}");
        }
    }
}
