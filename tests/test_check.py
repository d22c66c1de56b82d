import io
import socket
from functools import partial

import pytest
import trio
from attrs import evolve

from ark_trio import check
from ark_trio.check import ask_engines, run_check
from ark_trio.config import Address, Bind, FleetSettings, GrpcSettings, Limits, Settings
from ark_trio.errors import InternalError, NotImplementedByEngine
from ark_trio.hyper import patch
from ark_trio.settings.load import Loaded
from ark_trio.tls import serve_context
from ark_wire import ark_pb2
from tests.support.certificates import Authority
from tests.support.dns import name_server
from tests.support.fake_engine import failing, hang, open_fake_decoder, saying, text

STATUS = {"models": ["a", "b"], "role": "decoder", "slots": 4, "busy": 1, "queued": 2}
QUICK = Limits(connect_s=2, first_token_s=1)


def nobody():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return Address(host="127.0.0.1", port=server.getsockname()[1])


async def told(settings, probe=False):
    """What, whether it is well, and the words."""
    with trio.fail_after(20):
        return [(each.what, each.good, each.text) for each in await ask_engines(settings, probe)]


async def test_a_decoder_tells_models_and_load():
    async with open_fake_decoder(saying("x")) as decoder:
        decoder.engine.status = STATUS
        assert await told(decoder.settings()) == [
            ("decoder", True, "a, b · 1 of 4 slots busy · 2 waiting")
        ]


async def test_an_engine_without_get_status_is_well_when_it_answers():
    async with open_fake_decoder(saying("x")) as decoder:
        decoder.engine.status = NotImplementedByEngine("no such control")
        assert await told(decoder.settings()) == [
            ("decoder", True, "answers, but knows no GetStatus")
        ]


async def test_a_decoder_in_a_prefiller_s_place_is_bad():
    async with open_fake_decoder(saying("x")) as decoder:
        decoder.engine.status = STATUS
        settings = evolve(decoder.settings(), prefillers=(decoder.address,))
        assert (await told(settings))[1] == ("prefiller", False, "is a decoder")


async def test_an_engine_that_fails_is_bad_with_its_reason():
    async with open_fake_decoder(saying("x")) as decoder:
        decoder.engine.status = InternalError("out of memory")
        ((_, good, words),) = await told(decoder.settings())
        assert not good
        assert words


async def test_nobody_there_is_told_in_the_system_s_words():
    settings = Settings(decoders=(nobody(),), prefillers=(nobody(),))
    refused = "not reachable: Connection refused"
    assert await told(settings) == [("decoder", False, refused), ("prefiller", False, refused)]


async def test_every_address_of_a_name_is_asked_and_a_name_that_leads_nowhere_is_bad(tmp_path):
    async with open_fake_decoder(saying("x")) as decoder:
        decoder.engine.status = STATUS
        with name_server(tmp_path) as server:
            server.say(two=["127.0.0.1", "127.0.0.9"])
            settings = Settings(
                decoders=tuple(
                    Address(host=name, port=decoder.address.port)
                    for name in ("two.test", "none.test")
                ),
                fleet=FleetSettings(dns_servers=(Address(host="127.0.0.1", port=server.port),)),
            )
            assert await told(settings) == [
                ("decoder", True, "a, b · 1 of 4 slots busy · 2 waiting"),
                ("decoder", False, "not reachable: Connection refused"),
                ("decoder", False, "no such name: NXDOMAIN"),
            ]


async def test_an_engine_whose_certificate_is_not_good_is_told_in_tls_s_words(tmp_path):
    one, other = (Authority(tmp_path / name) for name in ("one", "other"))
    served = serve_context(GrpcSettings(tls=True, cert=one.issue("engine", "localhost")))
    async with open_fake_decoder(saying("x"), tls=served) as decoder:
        settings = Settings(
            decoders=(Address(host="localhost", port=decoder.address.port),),
            grpc=GrpcSettings(tls=True, ca=other.file),
        )
        ((_, good, words),) = await told(settings)
        assert not good
        assert words == "not reachable: TLS: unable to get local issuer certificate"


async def silent(_stream):
    await trio.sleep_forever()


async def test_a_port_that_speaks_no_grpc_is_bad_within_the_limit(monkeypatch, nursery):
    monkeypatch.setattr(check, "_STATUS_LIMIT_S", 0.3)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    await nursery.start(trio.serve_listeners, silent, listeners)
    address = Address(host="127.0.0.1", port=listeners[0].socket.getsockname()[1])
    settings = Settings(decoders=(address,), limits=Limits(connect_s=0.2))
    assert await told(settings) == [("decoder", False, "not reachable: no connection in time")]
    nursery.cancel_scope.cancel()


async def test_a_probe_generates_one_token_through_each_decoder():
    async with open_fake_decoder(saying("x")) as decoder:
        decoder.engine.status = STATUS
        _, (what, good, words) = await told(decoder.settings(), probe=True)
        assert (what, good) == ("probe", True)
        assert words.startswith("a generated a token in ")
        (call,) = decoder.engine.calls
        assert call.inputs["max_new_tokens"] == 1
        assert call.request.model_name == "a"


async def never_finishing(call, outbox):
    await outbox.put(call.say(text("x")))


async def nonsense_then_silence(call, outbox):
    await outbox.put(ark_pb2.InferenceResponse(outputs={"choice": ark_pb2.Value(int64_=3)}))
    await hang(call, outbox)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (failing(InternalError("out of memory")), ""),
        (never_finishing, "the answer has no end"),
        (hang, "no answer within 1 s"),
        (nonsense_then_silence, "choice"),
    ],
)
async def test_a_probe_that_fails_is_bad(script, said):
    async with open_fake_decoder(script) as decoder:
        _, (what, good, words) = await told(decoder.settings(limits=QUICK), probe=True)
        assert (what, good) == ("probe", False)
        assert said in words
        with trio.fail_after(2):
            await decoder.engine.calls[0].ended.wait()


async def test_a_decoder_that_is_away_is_not_probed():
    assert len(await told(Settings(decoders=(nobody(),)), probe=True)) == 1


async def test_many_engines_are_asked_at_once_and_told_in_order():
    async with open_fake_decoder(saying("x")) as decoder:
        settings = Settings(decoders=(nobody(), decoder.address) * 20)
        assert [good for _, good, _ in await told(settings)] == [False, True] * 20


async def run(settings):
    """Exit code and lines of the command; in a thread, since it starts a Trio of its own."""
    out = io.StringIO()
    loaded = Loaded(settings=settings, sources={"bind": "ARK_BIND", "models": "default"})
    command = partial(run_check, loaded, probe=False, out=out)
    return await trio.to_thread.run_sync(command), out.getvalue().splitlines()


async def test_the_command_succeeds_only_when_everything_is_well(monkeypatch):
    monkeypatch.setattr(check, "configure_logging", lambda _settings: None)
    async with open_fake_decoder(saying("x")) as decoder:
        code, lines = await run(evolve(decoder.settings(), unknown_variables=("ARK_PORT",)))
        assert code == 0
        assert lines[0].split() == ["configuration", "127.0.0.1:18080", "ok", "from", "ARK_BIND"]
        assert lines[1].split() == ["HTTP", "server", "hypercorn", "ok", "as", "tested"]
        assert lines[2].split()[:3] == ["variable", "ARK_PORT", "ok"]
        assert lines[3].split()[:3] == ["decoder", str(decoder.address), "ok"]
        code, lines = await run(evolve(decoder.settings(), prefillers=(nobody(),)))
        assert (code, lines[3].split()[2]) == (1, "BAD")
        code, lines = await run(evolve(decoder.settings(), bind=Bind(host="0.0.0.0", port=1)))
        assert (code, lines[0].split()[2]) == (1, "BAD")
        assert "ARK_INSECURE=1" in lines[0]


async def test_another_hypercorn_is_bad(monkeypatch):
    """The gateway reaches into its insides."""
    monkeypatch.setattr(check, "configure_logging", lambda _settings: None)
    monkeypatch.setitem(patch.MADE_FOR, "hypercorn", "0.99")
    async with open_fake_decoder(saying("x")) as decoder:
        code, lines = await run(decoder.settings())
    assert code == 1
    assert "hypercorn 0.18.0, not 0.99" in lines[1]


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [("# none yet\n", 0, "0 API keys"), ("{", 1, "line 1: not a JSON object")],
)
async def test_the_file_of_keys_is_part_of_the_configuration(
    tmp_path, monkeypatch, text, code, said
):
    monkeypatch.setattr(check, "configure_logging", lambda _settings: None)
    (tmp_path / "keys").write_text(text)
    async with open_fake_decoder(saying("x")) as decoder:
        ended, lines = await run(evolve(decoder.settings(), keys_file=tmp_path / "keys"))
    assert ended == code
    assert lines[0].startswith("configuration")
    assert said in lines[0]
