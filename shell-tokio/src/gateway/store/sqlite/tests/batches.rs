//! What waits is written together: in order, bounded, and none takes another along.

use super::*;

/// A call that keeps the writer busy until the sender is dropped.
fn occupy(store: &Store) -> (mpsc::Sender<()>, tokio::task::JoinHandle<()>) {
    let (free, wait) = mpsc::channel();
    let (begun, has_begun) = mpsc::channel();
    let store = store.clone();
    let call = tokio::spawn(async move {
        let work = move |_: &mut writer::Work<'_>| {
            begun.send(()).unwrap();
            let _: Result<(), _> = wait.recv();
            Ok(())
        };
        writer_of(&store).submit(work).await.unwrap();
    });
    tokio::task::block_in_place(|| has_begun.recv().unwrap());
    (free, call)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_written_in_one_transaction_and_in_its_order() {
    let folder = Folder::new();
    let store = folder.gateway();
    furnish(&store).await;
    for request in 1..=64 {
        store.hold(ACCOUNT, hold(request), NOW).await.unwrap();
    }
    let (free, busy) = occupy(&store);
    let before = store.load();
    let mut waiting = Vec::new();
    for request in 1..=64 {
        let settling = store.clone();
        // Polled once each, in order, so that they stand in the queue in that order.
        let mut call =
            Box::pin(async move { settling.settle(ACCOUNT, settle(request), NOW).await });
        assert!(poll_once(&mut call).is_none());
        waiting.push(call);
    }
    drop(free);
    for call in waiting {
        call.await.unwrap();
    }
    busy.await.unwrap();
    let after = store.load();
    assert_eq!(
        (after.batches - before.batches, after.calls - before.calls),
        (1, 64)
    );
    for request in 1..=64 {
        let booked = store
            .booked(ACCOUNT, RequestId::from_u128(request))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(u128::from(booked.sequence), request);
    }
}

fn poll_once<T>(call: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::Pin::new(call).poll(&mut context) {
        std::task::Poll::Ready(value) => Some(value),
        std::task::Poll::Pending => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_the_newcomer_and_loses_nobody() {
    let folder = Folder::new();
    let store = folder.gateway();
    let (free, busy) = occupy(&store);
    let mut waiting: Vec<_> = (0..STORE_QUEUE_MAX)
        .map(|_| {
            let store = store.clone();
            Box::pin(async move { store.accounts().await })
        })
        .collect();
    for call in &mut waiting {
        assert!(poll_once(call).is_none());
    }
    assert_eq!(store.accounts().await, Err(StoreError::Busy));
    drop(free);
    for call in waiting {
        assert_eq!(call.await, Ok(vec![]));
    }
    busy.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_fails_takes_none_of_its_batch_along() {
    let folder = Folder::new();
    let store = folder.gateway();
    furnish(&store).await;
    store.hold(ACCOUNT, hold(1), NOW).await.unwrap();
    let (free, busy) = occupy(&store);
    let failing = writer_of(&store).submit(|work: &mut writer::Work<'_>| {
        work.carry_out(ACCOUNT, Command::Settle(settle(1)), NOW)?;
        work.carry_out(ACCOUNT, Command::Hold(hold(2)), NOW)?;
        Err::<(), _>(StoreError::Locked)
    });
    let mut failing = Box::pin(failing);
    assert!(poll_once(&mut failing).is_none());
    let third = Box::pin(store.hold(ACCOUNT, hold(3), NOW));
    drop(free);
    let (failed, held) = tokio::join!(failing, third);
    assert_eq!((failed, held.map(drop)), (Err(StoreError::Locked), Ok(())));
    busy.await.unwrap();
    let summary = store.summary(ACCOUNT, NOW).await.unwrap();
    assert_eq!((summary.spent, summary.held), (Nanos(0), Nanos(2 * HELD)));
    store.settle(ACCOUNT, settle(1), NOW).await.unwrap();
    assert!(folder.verify().is_sound());
}

#[tokio::test]
async fn a_full_disk_is_said_and_the_store_goes_on_when_there_is_room() {
    let folder = Folder::new();
    let store = folder.gateway();
    furnish(&store).await;
    let pages = |most: i64| {
        writer_of(&store).submit(move |work: &mut writer::Work<'_>| {
            let set = format!("PRAGMA max_page_count = {most}");
            Ok(work
                .connection
                .query_row(&set, [], |row| row.get::<_, i64>(0))?)
        })
    };
    // Never less than the file has: so nothing more fits.
    pages(1).await.unwrap();
    let mut request = 0;
    let full = loop {
        request += 1;
        store.hold(ACCOUNT, hold(request), NOW).await.unwrap();
        match store.settle(ACCOUNT, settle(request), NOW).await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(full, StoreError::Full);
    assert_eq!(store.summary(ACCOUNT, NOW).await.unwrap().held, Nanos(HELD));
    pages(i64::from(u32::MAX) - 1).await.unwrap();
    store.settle(ACCOUNT, settle(request), NOW).await.unwrap();
    let spent = store.summary(ACCOUNT, NOW).await.unwrap().spent;
    assert_eq!(spent, Nanos(CHARGED * i64::try_from(request).unwrap()));
    assert!(folder.verify().is_sound());
}
