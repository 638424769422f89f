//! Measures every figure with every peer, round after round.

use anyhow::{Result, bail};

use super::cpu::Usage;
use super::metric::Values;
use super::peers::Kind;
use super::progress::Progress;
use super::results::{Measurement, Problem, Results};

/// Measures all figures of `results` with these peers and puts what comes of it there, failures
/// too; `measure` is given the figure's index, the peer and the round.
///
/// Fails when nothing at all could be measured.
pub(crate) async fn sweep(
    results: &mut Results,
    kinds: &[Kind],
    rounds: usize,
    measure: impl AsyncFn(usize, Kind, usize) -> Result<(Values, Usage)>,
) -> Result<()> {
    let mut progress = Progress::new(rounds * results.figures.len() * kinds.len());
    for round in 1..=rounds {
        for index in 0..results.figures.len() {
            let figure = results.figures[index].id.clone();
            let mut kinds = kinds.to_vec();
            // Nobody always comes first.
            let first = (round + index) % kinds.len();
            kinds.rotate_left(first);
            for kind in kinds {
                progress.step(&format!("round {round}: {figure}, {}", kind.name()));
                let (figure, peer) = (figure.clone(), kind.name().to_owned());
                match measure(index, kind, round).await {
                    Ok((values, usage)) => results.measurements.push(Measurement {
                        round,
                        figure,
                        peer,
                        work: 1,
                        seconds: usage.wall,
                        elsewhere: usage.elsewhere,
                        values,
                    }),
                    Err(problem) => {
                        let reason = format!("{problem:#}");
                        progress.say(&format!("! {peer}, {figure}: {reason}"));
                        let figure = Some(figure);
                        results.problems.push(Problem {
                            peer,
                            figure,
                            reason,
                        });
                    }
                }
            }
            progress.say(&format!("round {round} of {rounds}: {figure}"));
        }
    }
    if results.measurements.is_empty() {
        bail!("nothing could be measured; see above");
    }
    Ok(())
}
