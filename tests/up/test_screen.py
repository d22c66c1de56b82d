import io

from ark_trio.config import Bind
from ark_trio.up import screen as screen_module
from ark_trio.up.screen import Screen, ServiceLog, log_path


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Gone(io.StringIO):
    def write(self, _text):
        raise OSError(5, "Input/output error")


def test_on_a_terminal_progress_is_one_line_and_gives_way():
    out = Terminal()
    screen = Screen(out=out)
    screen.progress("one")
    screen.progress("two")
    screen.say("done")
    assert out.getvalue() == "one\r\x1b[Ktwo\r\x1b[Kdone\n"


def test_elsewhere_progress_is_a_line_at_each_change():
    out = io.StringIO()
    screen = Screen(out=out)
    for text in ("one", "one", "two"):
        screen.progress(text)
    screen.say("done")
    assert out.getvalue() == "one\ntwo\ndone\n"


def test_a_terminal_that_has_gone_is_no_failure():
    screen = Screen(out=Gone())
    screen.progress("x")
    screen.say("y")


def test_lines_go_to_the_file_with_their_service_s_name(tmp_path):
    out = io.StringIO()
    path = tmp_path / "state" / "up.log"
    log = ServiceLog(path=path, echo=Screen(out=out))
    log.write("decoder", "hello")
    log.close()
    assert path.read_text() == out.getvalue() == "decoder   | hello\n"


def test_each_run_starts_its_file_anew(tmp_path):
    for text in ("one", "two"):
        log = ServiceLog(path=tmp_path / "up.log", echo=None)
        log.write("x", text)
        log.close()
    assert (tmp_path / "up.log").read_text() == "x         | two\n"


def test_the_log_never_holds_more_than_two_files_of_its_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(screen_module, "_LOG_LIMIT_BYTES", 1000)
    log = ServiceLog(path=tmp_path / "up.log", echo=None)
    for number in range(1000):
        log.write("x", f"{number:80}")
    log.close()
    files = list(tmp_path.iterdir())
    assert {file.name for file in files} == {"up.log", "up.log.1"}
    assert all(file.stat().st_size < 1200 for file in files)
    assert (tmp_path / "up.log").read_text().endswith("999\n")


def test_a_log_that_cannot_be_written_is_no_failure(tmp_path):
    (tmp_path / "file").write_text("")
    log = ServiceLog(path=tmp_path / "file" / "up.log", echo=None)
    log.write("x", "y")
    log.close()


def test_each_gateway_has_its_own_log(tmp_path):
    environ = {"XDG_STATE_HOME": str(tmp_path)}
    assert log_path(Bind(host="::1", port=7), environ) == tmp_path / "ark-trio" / "up-7.log"
    socket = Bind(path=tmp_path / "http.sock")
    assert log_path(socket, environ) == tmp_path / "ark-trio" / "up-http.log"


def test_without_a_state_folder_the_log_is_in_the_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    found = log_path(Bind(host="::1", port=7), {"XDG_STATE_HOME": "relative"})
    assert found == tmp_path / ".local/state/ark-trio/up-7.log"
