use super::*;

#[test]
fn pages_are_there_once_they_have_arrived() {
    let mut cache = Cache::new(1 << 30);
    cache.insert(0, 510..514, Moment(7), By::Reader);
    let range = ByteRange::new(510 * PAGE, 5 * PAGE);
    assert_eq!(cache.present(0, range), 4 * PAGE);
    assert_eq!(
        (cache.resident(0, range, Moment(6)), cache.resident(0, range, Moment(7))),
        (0, 4 * PAGE)
    );
    assert_eq!(cache.arrives(0, range), Moment(7));
    assert_eq!(cache.absent(0, 500..520), [500..510, 514..520]);
    assert_eq!(cache.usable(0, 511..520, Moment(7)), 514);
    cache.mark(0, 512, true);
    assert_eq!(
        (cache.page(0, 512), cache.page(0, 511)),
        (Page::Marked, Page::At(Moment(7)))
    );
    assert_eq!(cache.usable(0, 511..520, Moment(7)), 512);
    assert_eq!(cache.page(1, 512), Page::Absent);
}

#[test]
fn a_range_that_ends_within_a_page_counts_its_own_bytes() {
    let mut cache = Cache::new(1 << 30);
    cache.insert(0, 0..2, Moment(0), By::Reader);
    assert_eq!(cache.present(0, ByteRange::new(0, PAGE + 5)), PAGE + 5);
}

#[test]
fn the_step_used_longest_ago_goes_first() {
    let mut cache = Cache::new(2 * STEP);
    cache.insert(0, 0..512, Moment(0), By::Reader);
    cache.insert(0, 512..1024, Moment(0), By::Reader);
    cache.touch((0, 0));
    assert_eq!(cache.insert(0, 1024..1025, Moment(0), By::Reader), [(0, 1)]);
    assert_eq!(cache.page(0, 600), Page::Absent);
}

#[test]
fn readahead_finds_the_trace_before_a_page() {
    let mut cache = Cache::new(1 << 30);
    cache.insert(0, 10..20, Moment(0), By::Reader);
    let part = OfPart(&cache, 0);
    assert_eq!(
        (part.before(20, 32), part.before(20, 4), part.before(10, 4)),
        (10, 4, 0)
    );
    assert_eq!((part.next_miss(12, 32), part.next_miss(12, 4)), (20, 16));
    assert_eq!(cache.next_missing(0, 12, 32), 20);
}

#[test]
fn after_the_middle_of_a_folio_the_kernel_looks_too_far() {
    let mut cache = Cache::new(1 << 30);
    // As traced: a window of 16 pages, and one of 32 that passes the end of a node.
    cache.insert(0, 4304..4320, Moment(0), By::Reader);
    cache.fold(0, 4304..4320, 4);
    assert_eq!(cache.head(0, 4305), 4304);
    assert_eq!(OfPart(&cache, 0).next_miss(4305, 32), 4321);
    cache.insert(0, 4144..4176, Moment(0), By::Reader);
    cache.fold(0, 4144..4176, 2);
    assert_eq!(OfPart(&cache, 0).next_miss(4145, 32), 4176);
    cache.insert(0, 4224..4256, Moment(0), By::Reader);
    cache.fold(0, 4224..4256, 2);
    assert_eq!(OfPart(&cache, 0).next_miss(4225, 32), 4257);
}
