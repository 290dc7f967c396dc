import contextlib
import functools
import os
import signal
import subprocess
import sys
import time

import pytest

from data_pipelines.workers import JobError, JobPool, result_of, run_jobs


def work(job):
    kind, value = job
    if kind == "sleep":
        time.sleep(value)
    if kind == "die":
        time.sleep(0.05)
        os._exit(value)
    if kind == "raise":
        raise ValueError(value)
    if kind == "disk":
        raise OSError(28, "No space left on device")
    if kind == "pid":
        return os.getpid()
    return os.environ["OMP_NUM_THREADS"], value


def make_good():
    return work


def make_bad(message):
    raise RuntimeError(message)


def make_dead():
    os._exit(3)


def run(jobs, make=make_good, workers=2, timeout=60.0):
    return dict(run_jobs(jobs, make, workers, timeout))


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for_end(pid, seconds=30):
    deadline = time.monotonic() + seconds
    while alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_every_job_has_a_result_whatever_happens_to_the_others():
    jobs = [("ok", 1), ("die", 9), ("raise", "odd"), ("ok", 2), ("die", 1), ("ok", 3)]
    jobs += [("ok", i) for i in range(4, 12)]
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


def test_the_environment_is_restored(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    run([("ok", 1)], workers=1)
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert run([]) == {}


def test_no_process_outlives_the_iterator():
    results = run_jobs([("pid", 1), ("sleep", 60)], make_good, 1, 60.0)
    _, pid = next(results)
    assert alive(pid)
    results.close()
    wait_for_end(pid, 10)


def test_a_pool_outlives_its_jobs():
    with contextlib.closing(JobPool(make_good, 1, timeout=60.0)) as pool:

        def do(*job):
            return result_of(pool.schedule(job))

        first = do("pid", 1)
        assert do("raise", "odd").kind == "error" and do("pid", 1) == first
        assert do("die", 9).kind == "crash"
        assert do("ok", 2) == ("1", 2) and do("pid", 1) != first
        with pytest.raises(OSError, match="No space left"):
            do("disk", 1)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("job", [("sleep", 2), ("ok", 1)], ids=["busy", "idle"])
def test_no_process_outlives_the_parent(tmp_path, number, job):
    """A busy process ends with its job if the parent had no chance to stop it."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, time\n"
        "from data_pipelines import workers\n"
        "from talkjax import commands\n"
        "from tests.data_pipelines.test_workers import make_good\n"
        "if __name__ == '__main__':\n"
        "    commands.exit_on_signals()\n"
        "    pool = workers.JobPool(make_good, 1, 60.0)\n"
        "    print(workers.result_of(pool.schedule(('pid', 0))), flush=True)\n"
        f"    workers.result_of(pool.schedule({job!r}))\n"
        "    print('done', flush=True)\n"
        "    time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, script], env=os.environ | {"PYTHONPATH": os.getcwd()},
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    pid = int(parent.stdout.readline())
    if job[0] == "ok":
        assert parent.stdout.readline() == "done\n"
    else:
        time.sleep(0.5)
    parent.send_signal(number)
    assert parent.wait(timeout=30) in (-signal.SIGKILL, 128 + signal.SIGTERM)
    wait_for_end(pid)
