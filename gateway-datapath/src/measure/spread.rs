//! Figures of several turns: a median, and how much it can be relied on.

use serde::{Deserialize, Serialize};

/// The middle of some figures, and a range around it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// As many lie below as above.
    pub median: f64,
    /// Begin of the range.
    pub lower: f64,
    /// End of the range.
    pub upper: f64,
}

impl Spread {
    /// Of at least one figure; the range is the middle half of them.
    pub(super) fn of(mut figures: Vec<f64>) -> Option<Self> {
        figures.sort_by(f64::total_cmp);
        Some(Self {
            median: rounded(quantile(&figures, 2)?),
            lower: rounded(quantile(&figures, 1)?),
            upper: rounded(quantile(&figures, 3)?),
        })
    }

    /// Of at least one figure; in the range, the median of any number of such figures would lie in
    /// 19 of 20 cases, however they are distributed. Below are as many of the figures as are rarely
    /// found below a median, by the normal approximation of the binomial distribution; 8 figures
    /// give the second and the last but one, which is 93 %.
    pub(super) fn of_median(mut figures: Vec<f64>) -> Option<Self> {
        figures.sort_by(f64::total_cmp);
        let count = u32::try_from(figures.len()).ok()?;
        let rarely = f64::from(count) / 2.0 - 0.98 * f64::from(count).sqrt();
        let below = (1..=count)
            .take_while(|rank| f64::from(*rank) <= rarely)
            .count();
        Some(Self {
            median: rounded(quantile(&figures, 2)?),
            lower: rounded(*figures.get(below)?),
            upper: rounded(*figures.iter().rev().nth(below)?),
        })
    }

    /// How long the range is.
    pub fn width(&self) -> f64 {
        self.upper - self.lower
    }
}

/// To four decimals: more of them mean nothing, and figures of so few digits are read from a file as
/// they were written (`serde_json` without its feature `float_roundtrip`).
pub(super) fn rounded(figure: f64) -> f64 {
    (figure * 1e4).round() / 1e4
}

/// So many quarters lie below it; between two figures, it is where a straight line leads.
fn quantile(sorted: &[f64], quarters: usize) -> Option<f64> {
    let place = quarters * sorted.len().checked_sub(1)?;
    let (index, part) = (place / 4, place % 4);
    let low = *sorted.get(index)?;
    let high = sorted.get(index + 1).copied().unwrap_or(low);
    let part = [0.0, 0.25, 0.5, 0.75][part];
    Some(low + (high - low) * part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_half_of_figures_is_found() {
        let spread = Spread::of(vec![5.0, 1.0, 2.0, 4.0, 3.0]).unwrap();
        assert_eq!((spread.lower, spread.median, spread.upper), (2.0, 3.0, 4.0));
        assert!((spread.width() - 2.0).abs() < f64::EPSILON);
        let spread = Spread::of(vec![1.0, 2.0]).unwrap();
        assert_eq!(
            (spread.lower, spread.median, spread.upper),
            (1.25, 1.5, 1.75)
        );
        assert!(Spread::of(vec![7.0]).unwrap().width().abs() < f64::EPSILON);
        assert_eq!(Spread::of(Vec::new()), None);
    }

    #[test]
    fn figures_are_read_as_they_were_written() {
        for number in 1..2_000_u32 {
            let figures = vec![f64::from(number) * 0.036_431_862_676_056_31];
            let spread = Spread::of(figures).unwrap();
            let text = serde_json::to_string(&spread).unwrap();
            assert_eq!(serde_json::from_str::<Spread>(&text).unwrap(), spread);
        }
    }

    #[test]
    fn a_median_of_more_figures_is_more_certain() {
        // The ranks are those of tables of the sign test.
        for (count, lower, upper) in [(1, 1, 1), (4, 1, 4), (8, 2, 7), (20, 6, 15), (32, 11, 22)] {
            let figures = (1..=count).map(f64::from).collect();
            let spread = Spread::of_median(figures).unwrap();
            assert_eq!(
                (spread.lower, spread.upper),
                (f64::from(lower), f64::from(upper))
            );
        }
        assert_eq!(Spread::of_median(Vec::new()), None);
    }
}
