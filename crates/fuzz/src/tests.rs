//! Every corpus holds, and a few thousand inputs made from it.

use super::corpus;
use super::mutate::Mutator;
use super::target::TARGETS;

#[test]
fn every_corpus_holds() {
    for target in TARGETS {
        let inputs = corpus::inputs(target.corpus);
        assert!(inputs.len() >= 5, "{}", target.name);
        for input in inputs {
            (target.run)(&input);
        }
    }
}

#[test]
fn mutations_of_every_corpus_hold() {
    for target in TARGETS {
        let mut mutator = Mutator::new(7, corpus::inputs(target.corpus));
        for _ in 0..1_000 {
            (target.run)(&mutator.next_input());
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_inputs() {
    let corpus = || vec![b"abc".to_vec(), b"defgh".to_vec()];
    let (mut one, mut other) = (Mutator::new(3, corpus()), Mutator::new(3, corpus()));
    for _ in 0..100 {
        assert_eq!(one.next_input(), other.next_input());
    }
}
