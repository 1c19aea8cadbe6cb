"""A process for each report, and a Jupyter kernel for its notebook.

Importing PyTorch, SciPy, pandas and Matplotlib takes longer than most notebooks. On Linux a server
process imports them once (`preload`). Each report's process is forked from it, and the kernel from
that process before it has threads. On other systems a fork is not safe, so both start without it.
"""

import multiprocessing
import os
import signal
import sys
import threading
import uuid
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from pathlib import Path

from labrnn.errors import LabError

FORKS = sys.platform == "linux"
FORK = multiprocessing.get_context("fork" if FORKS else "spawn")
_waiting = None  # the kernel of this process, until a notebook uses it


class Processes:
    """Run functions in new processes, which end with this one."""

    def __init__(self):
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        self.running, self.stopped = set(), False
        self.context = multiprocessing.get_context("forkserver" if FORKS else "spawn")
        if FORKS:
            # Matplotlib reads this at import, before a kernel would set it.
            os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
            self.context.set_forkserver_preload(["labrnn.reports.preload"])

    def prepare(self):
        """Start the server and its imports, before the first call of `run`."""
        if FORKS:
            with _without_interrupts():
                forkserver.ensure_running()

    def run(self, log, function, *arguments):
        """Call a function in a new process and wait for it.

        Args:
            log: path of the file for the output of the process and its kernel.

        Returns:
            the error message; empty if the function succeeded.

        Raises:
            LabError: no process can be started.
        """
        here, there = self.context.Pipe(duplex=False)
        process = self.context.Process(target=_main, args=(log, function, arguments, there))
        try:
            with _without_interrupts():
                process.start()
        except (OSError, EOFError, RuntimeError) as error:
            raise LabError(
                f"no process can be started for the reports ({type(error).__name__}: {error}); "
                "free memory or end other programs, then repeat the command"
            ) from None
        there.close()
        self.running.add(process)
        if self.stopped:  # while the process started
            process.kill()
        try:
            message = here.recv()
        except EOFError:
            message = None
        process.join()
        self.running.discard(process)
        return f"its process ended with code {process.exitcode}" if message is None else message

    def stop(self):
        """Kill all running processes, and those that start from now on."""
        self.stopped = True
        for process in list(self.running):
            process.kill()


@contextmanager
def _without_interrupts():
    """Block Ctrl-C for processes started here: the parent handles it.

    Otherwise it would end the server during its imports.
    """
    if not FORKS:
        yield
        return
    resource_tracker.ensure_running()  # before the mask: its start would reset it
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _main(log, function, arguments, pipe):
    global _waiting
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "wb") as file:
            for stream in (1, 2):
                os.dup2(file.fileno(), stream)
    except OSError as error:
        pipe.send(f"{log}: {error.strerror}")
        return
    if FORKS:
        _waiting = _Kernel(pipe)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        function(*arguments)
        message = ""
    except LabError as error:
        message = str(error)
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
    pipe.send(message)


def _end_with_parent():
    """End this process, and with it its kernel, when the parent ends."""
    multiprocessing.parent_process().join()
    os._exit(1)


class _Kernel(FORK.Process):
    """A process that becomes a kernel when a notebook needs one; it has the methods of `Popen`."""

    stdin = stdout = stderr = None

    def __init__(self, unused):
        super().__init__(daemon=True)
        self.request, self.pipe = FORK.Pipe(duplex=False)
        self.unused = unused
        self.start()
        self.request.close()

    def run(self):
        self.pipe.close()
        self.unused.close()
        try:
            file, env, folder = self.request.recv()
        except EOFError:  # no notebook used it
            return
        from ipykernel.kernelapp import IPKernelApp

        os.setsid()
        os.chdir(folder)
        os.environ.update(env)
        # Given as an option, since the class read the environment at import.
        parent = f"--IPKernelApp.parent_handle={os.getppid()}"
        history = "--HistoryManager.enabled=False"  # a database of all inputs
        IPKernelApp.launch_instance(argv=["-f", file, parent, history])

    def poll(self):
        return self.exitcode

    def wait(self):
        self.join()
        return self.exitcode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)


def manager(folder):
    """Return papermill's options for a kernel whose sockets are files in `folder`.

    Kernels that start at the same time could choose the same TCP port.
    """
    if os.name == "nt":
        return {}
    from jupyter_client.channels import AsyncZMQSocketChannel
    from jupyter_client.manager import AsyncKernelManager

    class Channel(AsyncZMQSocketChannel):
        async def get_msg(self, timeout=None):
            # A start waits 0.2 s for a message that does not come; these sockets are local.
            return await super().get_msg(0.02 if timeout == 0.2 else timeout)

    class Manager(AsyncKernelManager):
        def __init__(self, **options):
            file = Path(folder, f"kernel-{uuid.uuid4().hex[:12]}.json")
            super().__init__(transport="ipc", connection_file=str(file), **options)

        def client(self, **options):
            return super().client(iopub_channel_class=Channel, **options)

        async def _async_wait(self, pollinterval=0.1):
            await super()._async_wait(pollinterval / 10)

        async def _async_launch_kernel(self, command, **options):
            global _waiting
            if _waiting is None:
                return await super()._async_launch_kernel(command, **options)
            kernel, _waiting = _waiting, None
            env = dict(options.get("env", os.environ))
            kernel.pipe.send((self.connection_file, env, options.get("cwd") or os.getcwd()))
            local = self.provisioner
            local.process, local.pid, local.cwd = kernel, kernel.pid, Path.cwd()
            self._reconcile_connection_info(local.connection_info)
            return None

    return {"kernel_manager_class": Manager}
