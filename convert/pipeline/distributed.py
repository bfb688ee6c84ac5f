"""Distribute work on batches of pictures over the workers of a Ray cluster, by Ray Data.

Tasks read and preprocess the batches on CPUs; actors, each with the models loaded once, answer them, on a GPU each if
the cluster has GPUs. What a worker or a node had in hand when it ended is done again by others.
"""

import io
import logging
import os
import pickle
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convert.pipeline.frameworks import import_frameworks, quiet_stderr
from convert.pipeline.picture_work import Answer, Batch, Read, Run, Work, image_size, run_here
from convert.pipeline.process import ENDING, TEMPORARY, descendants
from convert.pipeline.processes import Result, run_apart
from convert.pipeline.progress import Watch
from models.errors import MixerError, UsageError, shown
from models.storage.temporary import temporary_folder

if TYPE_CHECKING:
    from validation.formats.runtimes import RunnableModel

_LOG = logging.getLogger(__name__)

LOCAL = "local"
"""The address that stands for a new cluster on this machine, which ends with the run."""

_REACHED = 5.0  # seconds that a cluster has to accept a connection
_READER, _ACTOR = 0.9, 0.05  # CPUs; together less than one, so that an actor never takes the CPU that reading waits for
_STORE = 1 << 30  # bytes of shared memory for batches, of a cluster on this machine
_SETTINGS = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # otherwise Ray warns that this will be the default
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_EXECUTION_NO_PROGRESS_TIMEOUT_S": "600",  # it replaces without end what ends while it loads
    "RAY_DATA_LOG_LEVEL": "CRITICAL",  # at ERROR it would print tracebacks of its own
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run` it would upload the working directory
    "RAY_USAGE_STATS_ENABLED": "0",
}


def chosen_run(address: str | None) -> Run:
    """Return the way to run work: on the Ray cluster at HOST:PORT or a new one (`local`); without address, here.

    Raises:
        UsageError: Ray is not installed, or nothing answers there.
    """
    if address is None:
        return run_here
    if find_spec("ray") is None:
        raise UsageError(
            "--ray needs ray, which this environment does not have: install the extra ray of this project, for "
            "instance `pip install --editable '.[ray]'`."
        )
    if address != LOCAL:
        _reach(address)
    return partial(_run_on_ray, address)


def run_where(address: str | None, call: Callable[[Watch | None], Result], watch: Watch | None) -> Result:
    """Run a call here, or one that uses a cluster in a process of its own, which Ray ends, silently, with the cluster.

    Raises:
        MixerError: the call raised it, or the process ended.
    """
    if address is None:
        return call(watch)
    check = "" if address == LOCAL else "check that it is running, and "
    lost = f"the connection to the Ray cluster {shown(address)} was lost: {check}run the same command again"
    return run_apart(call, watch, lost)


def _reach(address: str) -> None:
    host, _, port = address.rpartition(":")
    expected = f"expected HOST:PORT of a running Ray cluster, as `ray start --head` prints it, or {LOCAL}."
    if not host or "/" in host or not port.isdecimal():
        raise UsageError(f"--ray {shown(address)} is not an address: {expected}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACHED).close()
    except (OSError, OverflowError) as error:
        raise UsageError(f"--ray {shown(address)} cannot be reached ({error}): {expected}") from error


def _run_on_ray(
    address: str, work: Work[Batch, Read, Answer], models: "Sequence[RunnableModel]", batches: Sequence[Batch]
) -> Iterator[Answer]:
    size, here = image_size(models), os.getcwd()  # noqa: PTH109 (a plain name, for the other machines)
    with _cluster(address) as ray, _explained(ray):
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = int(sum(node.get("GPU", 0) for node in nodes))
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        context.execution_options.preserve_order = True
        rows = [{"batch": pickle.dumps(batch)} for batch in batches]
        answers = (
            ray.data.from_items(rows, override_num_blocks=len(rows))
            .map(partial(_read, work, size, here), num_cpus=_READER)
            .map(
                _Actor,
                fn_constructor_args=(work, here, gpus > 0),
                compute=ray.data.ActorPoolStrategy(size=gpus or max(1, sum("CPU" in node for node in nodes))),
                num_cpus=_ACTOR,
                num_gpus=1 if gpus else None,
            )
        )
        for row in answers.iter_rows():
            yield _found(pickle.loads(row["answer"]))  # noqa: S301 (made by this run)


def _has_token() -> bool:
    """Return whether there is a token for Ray's token authentication, in one of the places where Ray looks for it."""
    given = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    return given or Path("~/.ray/auth_token").expanduser().is_file()


@contextmanager
def _cluster(address: str) -> Iterator[Any]:
    """Connect to a cluster, or start one on this machine; yield the module ray."""
    os.environ.update(_SETTINGS)
    if address != LOCAL:
        os.environ["RAY_NUM_REDIS_GET_RETRIES"] = "1"  # otherwise it tries for many minutes if something else answers
    handlers = {number: signal.getsignal(number) for number in ENDING}
    with ExitStack() as stack:
        options: dict[str, Any] = {"address": address}
        if address == LOCAL:
            # The paths of its sockets may have 107 bytes, and TMPDIR may be long.
            folder = stack.enter_context(temporary_folder(Path("/tmp"), TEMPORARY, mode=0o700))  # noqa: S108
            options |= {"_temp_dir": str(folder), "_node_ip_address": "127.0.0.1", "object_store_memory": _STORE}
            options |= {"include_dashboard": False}
        stack.enter_context(redirect_stdout(_Said()))  # until Ray has shut down: it prints then what it held back
        with quiet_stderr():
            import ray
            import ray.data

            stack.callback(_shut_down, ray, descendants())
            try:
                _connect(ray, options | {"log_to_driver": False, "logging_level": logging.ERROR})
            except Exception as error:  # of many types
                raise MixerError(
                    f"--ray {shown(address)}: {shown(str(error).strip(), 600)}. Is it a running Ray cluster "
                    f"(`ray status --address {shown(address)}`), of the same Ray and Python? Where it asks for a "
                    "token, as Ray 2.59 and later do, ~/.ray/auth_token must be that of its head."
                ) from error
            finally:  # Ray replaces them
                for number, handler in handlers.items():
                    signal.signal(number, handler)
        yield ray


def _connect(ray: Any, options: dict[str, Any]) -> None:  # noqa: ANN401 (the module)
    """Connect to a cluster, or start one; with the user's token only if it is needed.

    A cluster that asks for none cannot reach a process that does, and takes its actors for abandoned.
    """
    try:
        ray.init(**options)
    except ConnectionError:
        if options["address"] == LOCAL or "RAY_AUTH_MODE" in os.environ or not _has_token():
            raise
        os.environ["RAY_AUTH_MODE"] = "token"
        ray._raylet.Config.initialize("")  # as Ray does: it has read the environment before
        ray.init(**options)


class _Said(io.TextIOBase):
    """Takes what Ray prints of workers and nodes that ended, for --debug: standard output is for results."""

    def write(self, text: str) -> int:
        if text.strip():
            _LOG.debug("%s", text.strip())
        return len(text)


def _shut_down(ray: Any, others: set[int]) -> None:  # noqa: ANN401 (the module)
    """Disconnect, and end all processes of a cluster that this process has started; some outlive it for a while."""
    started = descendants() - others
    ray.shutdown()
    for pid in started:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@contextmanager
def _explained(ray: Any) -> Iterator[None]:  # noqa: ANN401 (the module)
    failed = ray.exceptions.RayError
    try:
        yield
    except (failed, getattr(ray.data.exceptions, "ExecutionTimeoutError", failed)) as error:  # no RayError, and new
        reason = shown(" ".join(str(error).split()), 300)
        raise MixerError(
            f"the cluster could not finish: {reason}\nEvery node needs this project, in the same version and "
            "Python, and enough memory for the models; run the same command again to continue."
        ) from error


def _read(work: Work[Any, Any, Any], size: int, here: str, row: dict[str, bytes]) -> dict[str, bytes]:
    def read() -> object:
        _enter(here, any_device=False)
        return work.read(pickle.loads(row["batch"]), size)  # noqa: S301 (made by this run)

    return {"read": pickle.dumps(_attempt(read))}


class _Actor:
    """A worker that has loaded the models."""

    def __init__(self, work: Work[Any, Any, Any], here: str, gpu: bool) -> None:
        def load() -> "Sequence[RunnableModel]":
            _enter(here, any_device=gpu)
            return work.open()

        self._work, self._models = work, _attempt(load)

    def __call__(self, row: dict[str, bytes]) -> dict[str, bytes]:
        def answer() -> object:
            return self._work.answer(_found(self._models), _found(pickle.loads(row["read"])))  # noqa: S301

        return {"answer": pickle.dumps(_attempt(answer))}


@cache
def _enter(here: str, *, any_device: bool) -> None:
    """Prepare this worker: paths mean the same as where the run was started, and the frameworks are imported."""
    try:
        os.chdir(here)
    except OSError as error:
        raise MixerError(
            f"{here} cannot be entered on {socket.gethostname()} ({error.strerror}): every node must see the same "
            "files by the same paths."
        ) from error
    import_frameworks(any_device=any_device)
    if any_device:
        import tensorflow as tf

        tf.config.experimental.enable_tensor_float_32_execution(False)  # it multiplies in less than float32


def _attempt(call: Callable[[], Any]) -> Any:  # noqa: ANN401 (what it returns)
    """Return what a call returns, or the error that ends the run: one that is raised would be wrapped by Ray."""
    try:
        return call()
    except MixerError as error:
        return error
    except Exception as error:  # for the caller
        return MixerError(f"unexpected {type(error).__name__} on {socket.gethostname()}: {error}")


def _found(attempted: Any) -> Any:  # noqa: ANN401 (what was returned)
    if isinstance(attempted, MixerError):
        raise attempted
    return attempted
