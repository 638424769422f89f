//! Medians, ranges and ratios of the values that rounds gave.

use std::collections::BTreeMap;

/// The values of one thing over all rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    /// The middle value.
    pub(crate) median: f64,
    /// The least value.
    pub(crate) min: f64,
    /// The greatest value.
    pub(crate) max: f64,
}

impl Summary {
    /// Sums values up; `None` when there are none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let half = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[half]
        } else {
            f64::midpoint(sorted[half - 1], sorted[half])
        };
        Some(Self { median, min, max })
    }

    /// The ratios of `own` to `reference` in the rounds that have both, neither negative. Rounds are compared one
    /// by one, because what disturbs a machine disturbs neighbours alike.
    pub(crate) fn of_ratios(
        own: &BTreeMap<usize, f64>,
        reference: &BTreeMap<usize, f64>,
    ) -> Option<Self> {
        let ratios = own.iter().filter_map(|(round, value)| {
            let base = reference.get(round).filter(|base| **base > 0.0)?;
            (*value >= 0.0).then(|| value / base)
        });
        Self::of(ratios)
    }
}

/// The value below which this share (0 to 1) of the sorted values lies; 0 when there are none.
pub(crate) fn percentile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return 0.0;
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the product lies between 0 and the number of values"
    )]
    let index = (float(sorted.len() as u64) * share) as usize;
    sorted[index.min(last)]
}

/// A count as a number to reckon with.
#[expect(
    clippy::cast_precision_loss,
    reason = "52 bits are exact enough for what is measured"
)]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

/// The nearest count; 0 for what is negative.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the conversion saturates, which is what is wanted"
)]
pub(crate) fn count(value: f64) -> u64 {
    value.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_and_even_numbers_of_values_have_a_median() {
        let summary = Summary::of([3.0, 1.0, 2.0]).unwrap();
        assert_eq!((summary.median, summary.min, summary.max), (2.0, 1.0, 3.0));
        let even = Summary::of([4.0, 1.0]).unwrap();
        assert_eq!((even.median, even.min, even.max), (2.5, 1.0, 4.0));
        assert_eq!(Summary::of([]), None);
    }

    #[test]
    fn ratios_are_those_of_common_rounds() {
        let own = BTreeMap::from([(1, 2.0), (2, 9.0), (3, 4.0), (4, 1.0)]);
        let reference = BTreeMap::from([(1, 1.0), (3, 1.0), (4, 0.0), (5, 7.0)]);
        let ratios = Summary::of_ratios(&own, &reference).unwrap();
        assert_eq!((ratios.median, ratios.min, ratios.max), (3.0, 2.0, 4.0));
        assert_eq!(Summary::of_ratios(&own, &BTreeMap::new()), None);
    }

    #[test]
    fn percentiles_stay_within_the_values() {
        let sorted: Vec<f64> = (0..1000).map(float).collect();
        let found = [0.5, 0.999, 1.0].map(|share| count(percentile(&sorted, share)));
        assert_eq!(found, [500, 999, 999]);
        assert_eq!(count(percentile(&[], 0.5)), 0);
    }

    #[test]
    fn counts_are_rounded_and_never_negative() {
        assert_eq!((count(1.5), count(-3.0)), (2, 0));
    }
}
