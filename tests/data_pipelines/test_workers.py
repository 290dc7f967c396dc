import functools
import os
import time

import pytest

from data_pipelines.workers import JobError, Worker, run_jobs


def work(job):
    kind, value = job
    if kind == "sleep":
        time.sleep(value)
    if kind == "die":
        os._exit(value)
    if kind == "raise":
        raise ValueError(value)
    if kind == "disk":
        raise OSError(28, "No space left on device")
    return os.environ["OMP_NUM_THREADS"], value


def make_good():
    return work


def make_bad(message):
    raise RuntimeError(message)


def make_dead():
    os._exit(3)


def run(jobs, make=make_good, workers=2, timeout=60.0):
    return dict(run_jobs(jobs, make, workers, timeout))


def test_every_job_has_a_result_whatever_happens_to_the_others():
    jobs = [("ok", 1), ("die", 9), ("raise", "odd"), ("ok", 2), ("die", 1), ("ok", 3)]
    results = run(jobs)
    assert results.keys() == set(jobs)
    assert results["ok", 3] == ("1", 3)
    assert isinstance(results["die", 9], JobError) and results["die", 9].kind == "crash"
    assert "exit code 9" in results["die", 9].detail
    assert results["raise", "odd"].kind == "error" and "odd" in results["raise", "odd"].detail


def test_a_hanging_job_is_given_up():
    start = time.monotonic()
    results = run([("sleep", 60), ("ok", 1)], timeout=1.0)
    assert results["sleep", 60].kind == "timeout" and results["ok", 1] == ("1", 1)
    assert time.monotonic() - start < 30


def test_what_would_fail_every_job_ends_the_run():
    with pytest.raises(RuntimeError, match="no face finder"):
        run([("ok", 1)], functools.partial(make_bad, "no face finder"))
    with pytest.raises(RuntimeError, match="died at its start"):
        run([("ok", 1)], make_dead)
    with pytest.raises(OSError, match="No space left"):
        run([("disk", 1), ("ok", 1)])


def test_the_environment_is_put_back(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    run([("ok", 1)], workers=1)
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert run([]) == {}


def test_a_worker_that_is_handed_jobs_singly_outlives_them():
    worker = Worker(make_good, timeout=60.0)
    try:
        assert worker.run(("ok", 1)) == ("1", 1)
        first = worker._process.process.pid
        assert worker.run(("raise", "odd")).kind == "error"
        assert worker._process.process.pid == first
        assert worker.run(("die", 9)).kind == "crash"
        assert worker.run(("ok", 2)) == ("1", 2) and worker._process.process.pid != first
        with pytest.raises(OSError, match="No space left"):
            worker.run(("disk", 1))
    finally:
        worker.close()
    with pytest.raises(RuntimeError, match="no face finder"):
        Worker(functools.partial(make_bad, "no face finder"), 60.0).run(("ok", 1))
