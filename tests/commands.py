"""Commands without their start: importing JAX and grain takes seconds, and many tests run one."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Nothing is started before the fork (no device, no thread): what is forked has modules only.
_SERVER = """
import importlib, json, os, runpy, signal, sys, traceback
for name in sys.argv[1:]:
    importlib.import_module(name)
print("ready", flush=True)
for line in sys.stdin:
    given = json.loads(line)
    pid = os.fork()
    if not pid:
        code = 1
        signal.alarm(300)  # ends what hangs
        try:
            for target, path in enumerate(given["files"], 1):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), target)
            sys.argv = given["command"]
            if sys.argv[0].endswith(".py"):
                runpy.run_path(sys.argv[0], run_name="__main__")
            else:
                runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Commands:
    """Runs commands at the repository's root, each in a fork of a process that has the imports."""

    def __init__(self, folder: Path, *modules: str):
        self._files = [str(folder / "stdout"), str(folder / "stderr")]
        self._server = subprocess.Popen(
            [sys.executable, "-c", _SERVER, *modules],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._server.stdout.readline() == "ready\n"

    def run(self, *command: object) -> subprocess.CompletedProcess:
        """Runs `script.py arguments` or `module arguments` to its end."""
        command = [str(part) for part in command]
        print(json.dumps({"command": command, "files": self._files}), file=self._server.stdin)
        self._server.stdin.flush()
        code = int(self._server.stdout.readline())
        texts = (Path(path).read_text() for path in self._files)
        return subprocess.CompletedProcess(command, code, *texts)

    def close(self) -> None:
        """Ends the process."""
        self._server.communicate(timeout=60)
