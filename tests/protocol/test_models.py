from ark_trio.protocol.models import model_list, model_object, unknown_model


def test_a_model_has_the_fields_that_clients_read():
    assert model_object("m", created=7, max_model_len=8192) == {
        "id": "m",
        "object": "model",
        "created": 7,
        "owned_by": "ark-trio",
        "root": "m",
        "parent": None,
        "max_model_len": 8192,
        "permission": [],
    }
    assert model_object("m", created=7, owned_by="me")["max_model_len"] is None


def test_a_model_is_listed_once():
    a, b = model_object("a", created=1), model_object("b", created=1)
    assert model_list([a, b, model_object("a", created=2)]) == {"object": "list", "data": [a, b]}
    assert model_list([]) == {"object": "list", "data": []}


def test_an_unknown_model_is_told_what_is_served():
    error = unknown_model("x" * 500, ["b", "a", "b"])
    assert (error.status, error.param, error.code) == (404, "model", "model_not_found")
    assert error.message == f"The model `{'x' * 200}` does not exist. Models served here: a, b."
    assert "none" in unknown_model("x", []).message
