"""A process of the check: what it prints, the rows that it appends to a file, and its end with all its children."""

import contextlib
import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__ != "gpu":
    from ...cli.standalone import children
else:
    # `gpu_check` run as a file, which adds the folder of these modules to the path.
    from cli.standalone import children

from .summary import shortened


class Job:
    """A process in its own process group.

    Parameters
    ----------
    command : list of str
        The word ``LINES`` in it becomes the path of the file of rows.
    scratch : Path
        Folder of the log and the file of rows, in which the process runs.
    environment : mapping of str to str
    keeper : Keeper, optional
        Ends the process if this one is killed.
    """

    def __init__(
        self, command: list[str], scratch: Path, environment: Mapping[str, str], keeper: children.Keeper | None
    ) -> None:
        name = str(sum(1 for _ in scratch.glob("*.log")))
        self._scratch, self._keeper = scratch, keeper
        self._log, self._rows = scratch / f"{name}.log", scratch / f"{name}.rows"
        # All processes that the command starts have this mark, also in other process groups and sessions.
        self._mark = f"{scratch}/{name}"
        self._read = 0
        self.command = [str(self._rows) if word == "LINES" else word for word in command]
        self.code: int | None = None
        self.problem = ""
        self._process: subprocess.Popen[bytes] | None = None
        with self._log.open("wb") as log:
            try:
                self._process = subprocess.Popen(
                    self.command,
                    cwd=scratch,
                    env=children.marked({**environment, "XPNN_GPU_LINES": str(self._rows)}, self._mark),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                self.problem = f"does not start: {error}"
                return
        if keeper is not None:
            keeper.note(self._process.pid)

    @property
    def ended(self) -> bool:
        """Whether the process has ended, or was never started."""
        return self.code is not None or self._process is None

    def poll(self, over: bool) -> None:
        """Look whether the process has ended; kill what is left of it if it has, or if time is ``over``."""
        if self.code is None and self._process is not None:
            self.code = self._process.poll()
            if over or self.code is not None:
                self._kill(self._process)

    def _kill(self, process: "subprocess.Popen[bytes]") -> None:
        """Kill the process and all that it started, which may have outlived it."""
        children.end(process.pid, f"{self._mark};")
        children.reap(process)
        if self._keeper is not None:
            self._keeper.forget(process.pid)

    def new_rows(self) -> Iterator[dict[str, Any]]:
        """Rows that were appended since the last call; an incomplete line is left for the next call."""
        try:
            with self._rows.open("rb") as file:
                file.seek(self._read)
                fresh = file.read()
        except OSError:
            return
        whole = fresh[: fresh.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            with contextlib.suppress(ValueError):
                yield json.loads(line)

    def printed(self) -> str:
        """The output of the process, under its command."""
        text = self._log.read_bytes().decode("utf-8", "replace")
        command = " ".join(self.command).replace(f"{self._scratch}/", "")
        return f"\n== {command}\n{shortened(text)}"
