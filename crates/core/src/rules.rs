//! The rules of the bucket protocol, one flag each, so that the model checker can leave one out.
//!
//! Production has all of them, always: [`Rules::ALL`]. Leaving a rule out breaks a connection; the
//! shortest way in which it does is recorded under `crates/sim/traces` and replayed by every test
//! run. There is no other machinery for mutants: what the checker drives with one flag cleared is
//! what the product runs.

/// Which rules hold. A cleared flag is a mutant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// Who stamps puts last whom it believes dead. Cleared: it leaves them out.
    pub believed_dead_last: bool,
    /// A half-open entry owns only what acknowledges our initial sequence number. Cleared: every
    /// ACK.
    pub check_initial_sequence: bool,
    /// The kernel is asked for every packet. Cleared: at rest the head takes whatever comes.
    pub look_up_always: bool,
    /// Data older than the hop's row is stamped anew. Cleared: it goes on by its old word.
    pub restamp_data: bool,
    /// A SYN older than the hop's row is stamped anew. Cleared: it is judged and goes on by its old
    /// word.
    pub restamp_syn: bool,
    /// A SYN stamped anew names the stamping hop too. Cleared: it does not.
    pub restamp_syn_with_self: bool,
    /// The head takes an older SYN. Cleared: it stamps it anew and passes it on like any other hop.
    pub restamp_syn_unless_head: bool,
    /// An ingress that stamps anew uses its own belief. Cleared: it believes nobody dead.
    pub restamp_by_own_belief: bool,
    /// An ingress that stamps anew ignores the order of the old word. Cleared: it keeps that order
    /// instead of its own belief; guests which the old word does not name stay where its row has
    /// them.
    pub restamp_ignores_old_order: bool,
    /// A SYN is passed on where nothing listens. Cleared: the stack refuses it there.
    pub pass_syn_when_not_listening: bool,
    /// Only a guest that its own row names accepts. Cleared: everyone that listens.
    pub accept_only_when_listed: bool,
    /// Only a hop whose own row is the packet's lets the stack answer. Cleared: any last hop.
    pub answer_only_for_own_row: bool,
    /// A hop whose row is older than the packet's sets *no answer*. Cleared: it does not.
    pub set_no_answer: bool,
    /// The stack answers only while the lease runs. Cleared: always.
    pub lease_to_answer: bool,
    /// Half-open entries count as live. Cleared: they do not.
    pub count_half_open: bool,
    /// A row goes to the leaver first, which acknowledges when, after it has the row, its kernel
    /// holds nothing. Cleared: its last count before the row was written is enough.
    pub leaver_first: bool,
    /// At most one living guest leaves per row. Cleared: all that have to go and counted zero leave
    /// at once.
    pub one_leaves_per_row: bool,
    /// A new standby joins in a row of its own, before others leave. Cleared: it joins in the row
    /// in which all that have to go leave together.
    pub join_before_leaving: bool,
    /// A joiner gets the row after all other guests. Cleared: together with them.
    pub joiner_last: bool,
    /// Directors get a row after all guests. Cleared: together with them. Redundant in the model;
    /// kept as depth.
    pub guests_before_directors: bool,
    /// The next row waits until all have acknowledged this one. Cleared: it does not wait.
    pub barrier: bool,
    /// A suspect goes to the tail of its rows. Cleared: it is dropped from them.
    pub suspect_to_tail: bool,
    /// A kernel that comes back gets a new slot. Cleared: its old one.
    pub new_slot_for_new_kernel: bool,
    /// A row goes on without a guest's acknowledgement only when that guest's lease has run out.
    /// Cleared: at once.
    pub lease_wait: bool,
    /// The wait for the lease holds for every row. Cleared: only for rows that change the head.
    pub lease_wait_for_every_row: bool,
    /// A suspect is trusted with a lease again only when it has the newest rows. Cleared: at once.
    pub lease_back_with_newest_row: bool,
    /// A guest that holds connections of a bucket whose row lacks it is appended first. Cleared: it
    /// is not. Redundant in the model; kept as depth.
    pub append_holder: bool,
}

impl Rules {
    /// All rules hold. The only value outside the model checker and its tests.
    pub const ALL: Self = Self {
        believed_dead_last: true,
        check_initial_sequence: true,
        look_up_always: true,
        restamp_data: true,
        restamp_syn: true,
        restamp_syn_with_self: true,
        restamp_syn_unless_head: true,
        restamp_by_own_belief: true,
        restamp_ignores_old_order: true,
        pass_syn_when_not_listening: true,
        accept_only_when_listed: true,
        answer_only_for_own_row: true,
        set_no_answer: true,
        lease_to_answer: true,
        count_half_open: true,
        leaver_first: true,
        one_leaves_per_row: true,
        join_before_leaving: true,
        joiner_last: true,
        guests_before_directors: true,
        barrier: true,
        suspect_to_tail: true,
        new_slot_for_new_kernel: true,
        lease_wait: true,
        lease_wait_for_every_row: true,
        lease_back_with_newest_row: true,
        append_holder: true,
    };
}
