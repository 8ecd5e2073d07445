//! The programs alone, and rows.

use std::time::Instant;

use anyhow::Result;
use hitless_bpf::{Director, Vni};
use hitless_harness::figures::{Figure, median};

use crate::scene::{ACK, SYN, VNI, encapsulated, packet4, packet6, rows};
use crate::wrapped::{Bench, ROUNDS};

const FLOWS: [u32; 4] = [1, 1_024, 131_072, 1_048_576];

/// Returns the floor's figures at the fewest and the most flows.
pub(crate) fn measure_director(bench: &Bench, figures: &mut Vec<Figure>) -> Result<[f64; 2]> {
    let packet4 = packet4(ACK);
    let packet6 = packet6();
    let (mut first, mut floors) = (None, [0.0; 2]);
    for flows in FLOWS {
        let [ours, floor] = bench.net(
            flows,
            ACK,
            &packet4,
            "bench_nothing",
            "bench_move_head",
            ["bench_director4", "bench_least"],
            [true, false],
        )?;
        let figure = Figure::new(format!("director, IPv4 ACK, {flows} flows"), "ns", ours)
            .beside("floor", floor);
        let Some(alone) = first else {
            // What the others are compared with.
            first = Some(ours);
            floors = [floor; 2];
            figures.push(figure);
            continue;
        };
        floors[1] = floor;
        let is_flat = ours <= 1.25 * alone;
        figures.push(if flows == FLOWS[3] {
            let is_low = ours <= 4.5 * floor;
            figure.goal("<= 4.5 x floor, <= 1.25 x one flow", is_low && is_flat)
        } else {
            figure.goal("<= 1.25 x one flow", is_flat)
        });
    }
    let flows = FLOWS[3];
    let [ack] = bench.net(
        flows,
        ACK,
        &packet4,
        "bench_nothing",
        "bench_move_head",
        ["bench_director4"],
        [true],
    )?;
    let [syn] = bench.net(
        flows,
        SYN,
        &packet4,
        "bench_nothing",
        "bench_move_head",
        ["bench_director4"],
        [true],
    )?;
    let figure = Figure::new(format!("director, IPv4 SYN, {flows} flows"), "ns", syn);
    figures.push(
        figure
            .beside("ACK", ack)
            .goal("<= 1.1 x an ACK", syn <= 1.1 * ack),
    );
    let [v6] = bench.net(
        flows,
        ACK,
        &packet6,
        "bench_nothing6",
        "bench_move_head",
        ["bench_director6"],
        [true],
    )?;
    figures.push(Figure::new(
        format!("director, IPv6 ACK, {flows} flows"),
        "ns",
        v6,
    ));
    Ok(floors)
}

/// `floors` are the floor's figures at the fewest and the most flows.
pub(crate) fn measure_ingress(
    bench: &Bench,
    floors: [f64; 2],
    figures: &mut Vec<Figure>,
) -> Result<()> {
    for (flows, floor) in [FLOWS[0], FLOWS[3]].into_iter().zip(floors) {
        let [ours] = bench.net(
            flows,
            ACK,
            &encapsulated(),
            "bench_nothing",
            "bench_cut_head",
            ["bench_ingress"],
            [true],
        )?;
        let figure = Figure::new(
            format!("ingress without look-up, {flows} flows"),
            "ns",
            ours,
        )
        .beside("floor", floor);
        figures.push(figure.goal("<= 3 x floor", ours <= 3.0 * floor));
    }
    Ok(())
}

/// All rows of a virtual cluster, against 1,000 system calls that do nothing.
pub(crate) fn measure_rows(director: &Director) -> Result<Figure> {
    let vni = Vni::new(VNI)?;
    let mut times = Vec::new();
    let mut calls = Vec::new();
    for round in 0..ROUNDS as u16 {
        let rows = rows(round + 2)?;
        let start = Instant::now();
        director.set_rows(vni, &rows)?;
        times.push(start.elapsed().as_nanos() as f64 / 1_000.0);
        let start = Instant::now();
        for _ in 0..1_000 {
            std::hint::black_box(rustix::process::getppid());
        }
        calls.push(start.elapsed().as_nanos() as f64 / 1_000.0);
    }
    let (ours, calls) = (median(times), median(calls));
    let figure = Figure::new("65,536 rows applied", "us", ours).beside("1,000 system calls", calls);
    Ok(figure.goal("< 1,000 empty system calls", ours < calls))
}
