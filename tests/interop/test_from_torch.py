"""Modules written by hand, as people write them, become models: `from_torch`."""

import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import xpnn as nn
from xpnn.interop.torch.functions import FUNCTIONS


@pytest.fixture(autouse=True)
def seed(request):
    if "torch" in request.fixturenames:
        request.getfixturevalue("torch").manual_seed(0)


def module_of(torch, forward, **parts):
    """A module with these parts and that forward, a function of the module and its input."""

    class Written(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for name, part in parts.items():
                setattr(self, name, part)

        def forward(self, x):
            return forward(self, x)

    return Written()


def agrees(torch, module, shape, **placement):
    """The model of a module, which computes what the module does: outputs, gradients, statistics."""
    model = nn.from_torch(module, (None, *shape), backend="numpy", **placement)
    assert {*model.state_dict()} == {*module.state_dict()}
    dtype = getattr(torch, model.backend.dtype_name)
    for training in (False, True):
        module.train(training), model.train(training)
        x = torch.randn((4, *shape), dtype=dtype, requires_grad=True)
        y = module(x)
        np.testing.assert_allclose(model(x.detach().numpy()), y.detach().numpy(), rtol=1e-4, atol=1e-4)
    dy = torch.randn_like(y)
    y.backward(dy)
    np.testing.assert_allclose(model.backward(dy.numpy()), x.grad.numpy(), rtol=1e-3, atol=1e-3)
    named = dict(model.named_parameters())
    for name, parameter in module.named_parameters():
        np.testing.assert_allclose(named[name].grad, parameter.grad.numpy(), rtol=1e-3, atol=1e-3)
    for name, buffer in module.named_buffers():
        np.testing.assert_allclose(model.state_dict()[name], buffer.numpy(), rtol=1e-4, atol=1e-5)
    return model


def test_a_lenet_of_functions(torch):
    functional = torch.nn.functional

    def forward(self, x):
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), (2, 2), stride=2)
        x = x.view(x.size(0), -1)
        x = functional.relu(self.fc1(x))
        return functional.log_softmax(self.fc2(x), dim=1)

    module = module_of(
        torch,
        forward,
        conv1=torch.nn.Conv2d(1, 6, 5, padding=2),
        conv2=torch.nn.Conv2d(6, 16, 5),
        fc1=torch.nn.Linear(400, 32),
        fc2=torch.nn.Linear(32, 10),
    )
    model = agrees(torch, module, (1, 28, 28))
    assert isinstance(model, nn.Sequential)
    assert list(model.children)[:2] == ["conv1", "relu"] and "fc2" in model.children


def test_a_residual_block_with_a_shortcut_and_one_relu_used_twice(torch):
    def forward(self, x):
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += self.downsample(x)
        return self.relu(y)

    short = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 1, stride=2, bias=False), torch.nn.BatchNorm2d(8))
    module = module_of(
        torch,
        forward,
        conv1=torch.nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
        bn1=torch.nn.BatchNorm2d(8),
        relu=torch.nn.ReLU(inplace=True),
        conv2=torch.nn.Conv2d(8, 8, 3, padding=1, bias=False),
        bn2=torch.nn.BatchNorm2d(8, momentum=0.3),
        downsample=short,
    )
    assert isinstance(agrees(torch, module, (3, 8, 8)), nn.Graph)


def test_a_unet_with_concatenation_and_upsampling(torch):
    functional = torch.nn.functional

    def forward(self, x):
        a = torch.relu(self.down(x))
        b = self.bottom(functional.avg_pool2d(a, 2)).tanh()
        b = functional.interpolate(b, scale_factor=2, mode="bilinear", align_corners=False)
        c = self.up(functional.interpolate(self.bottom(functional.avg_pool2d(a, 4)), size=(4, 4)))
        return self.head(torch.cat([a, b, functional.pad(c, (0, 0, 0, 0))], dim=1))

    module = module_of(
        torch,
        forward,
        down=torch.nn.Conv2d(2, 4, 3, padding=1),
        bottom=torch.nn.Conv2d(4, 4, 3, padding=1),
        up=torch.nn.ConvTranspose2d(4, 4, 2, stride=2),
        head=torch.nn.Conv2d(12, 3, 1),
    )
    model = nn.from_torch(module, (None, 2, 8, 8), backend="numpy")
    # A module called twice is one layer in two places, with two names.
    assert model.state_dict()["bottom.weight"] is model.state_dict()["bottom_2.weight"]
    x = torch.randn(2, 2, 8, 8)
    np.testing.assert_allclose(model(x.numpy()), module(x).detach().numpy(), rtol=1e-4, atol=1e-5)
    back = nn.to_torch(model)
    assert back.bottom.weight is back.bottom_2.weight
    assert len(list(back.parameters())) == len(list(module.parameters()))


def test_squeeze_and_excitation(torch):
    def forward(self, x):
        w = x.mean(dim=(2, 3), keepdim=True)
        return x * torch.nn.functional.hardsigmoid(self.b(torch.nn.functional.silu(self.a(w))))

    agrees(torch, module_of(torch, forward, a=torch.nn.Conv2d(6, 2, 1), b=torch.nn.Conv2d(2, 6, 1)), (6, 5, 4))


def test_a_transformer_block_on_the_tokens_of_an_image(torch):
    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return self.head(x.mean(dim=1))

    module = module_of(
        torch,
        forward,
        patches=torch.nn.Conv2d(1, 8, 2, stride=2),
        norm=torch.nn.LayerNorm(8),
        attention=torch.nn.MultiheadAttention(8, 2, batch_first=True),
        head=torch.nn.Linear(8, 3),
    )
    agrees(torch, module, (1, 6, 6))


def test_nested_sequentials_are_nested(torch):
    t = torch.nn
    module = module_of(
        torch,
        lambda self, x: self.classifier(torch.flatten(self.features(x), 1)),
        features=t.Sequential(t.Conv2d(1, 4, 3), t.Sequential(t.BatchNorm2d(4), t.ReLU6()), t.AdaptiveAvgPool2d(2)),
        classifier=t.Sequential(t.Dropout(0.0), t.Linear(16, 3), t.Softmax(dim=1)),
    )
    model = agrees(torch, module, (1, 6, 6))
    assert repr(model["features"][1]) == "Sequential(BatchNorm2d(4), ReLU6())"


def test_what_is_trained_and_in_training_is_so_in_the_model(torch):
    t = torch.nn
    module = t.Sequential(t.Conv2d(1, 2, 3), t.BatchNorm2d(2), t.Flatten(), t.Dropout(0.5))
    module[0].weight.requires_grad_(False)
    module[1].eval()
    model = nn.from_torch(module, (2, 1, 5, 5), backend="numpy")
    assert [p.requires_grad for _, p in model.named_parameters()] == [False, True, True, True]
    assert [layer.training for layer in model] == [True, False, True, True]
    back = nn.to_torch(model)
    assert [p.requires_grad for p in back.parameters()] == [False, True, True, True]
    assert [back.get_submodule(name).training for name in "0123"] == [True, False, True, True]


IN_PLACE = [
    lambda self, x: self.a(x).add_(self.b(x)).relu_(),
    # The array is read again after it was overwritten.
    lambda self, x: (lambda y: torch_relu(self, y) + y)(self.a(x)),
    lambda self, x: (lambda y: self.relu(y) * y)(self.a(x)),
    lambda self, x: (lambda y: y.view(-1, 4).relu_() + self.b(x))(self.a(x)),
    lambda self, x: (lambda y: y.clone().relu_() + y)(self.a(x)),
]


def torch_relu(self, y):
    return sys.modules["torch"].nn.functional.relu(y, True)


@pytest.mark.parametrize("forward", IN_PLACE)
def test_what_is_overwritten_is_read_as_it_is_then(torch, forward):
    t = torch.nn
    module = module_of(torch, forward, a=t.Linear(4, 4), b=t.Linear(4, 4), relu=t.ReLU(inplace=True))
    x = torch.randn(3, 4)
    model = nn.from_torch(module, (3, 4), backend="numpy")
    np.testing.assert_allclose(model(x.numpy()), module(x).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_a_view_of_what_is_overwritten_is_refused(torch):
    def forward(self, x):
        y = self.a(x)
        z = y.view(-1, 2, 2)
        y.relu_()
        return z.flatten(1) + y

    module = module_of(torch, forward, a=torch.nn.Linear(4, 4))
    with pytest.raises(ValueError, match="in place, of which view is another view"):
        nn.from_torch(module, (3, 4))


ALIASES = [
    lambda self, x: (lambda y: (y, self.plus(y, x))[0])(self.a(x)),
    lambda self, x: (lambda y: y * self.plus(y, x))(self.a(x)),
    lambda self, x: (lambda y: self.relu(self.drop(y)))(self.a(x)),
    lambda self, x: (lambda y: (y, self.times(y, x))[0])(self.a(x)),
]


@pytest.mark.parametrize("forward", ALIASES)
def test_what_has_two_names_is_overwritten_under_both(torch, forward):
    t = torch.nn

    class Written(t.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = t.Linear(4, 4), t.Linear(4, 4)
            self.relu, self.drop = t.ReLU(inplace=True), t.Dropout(0.5)

        def plus(self, y, x):
            y += self.b(x)
            return y

        def times(self, y, x):
            y *= self.b(x)
            return y

        def forward(self, x):
            return forward(self, x)

    module, x = Written().eval(), torch.randn(3, 4)
    with torch.no_grad():
        wanted = module(x).numpy()
    model = nn.from_torch(module, (3, 4), backend="numpy")
    np.testing.assert_allclose(model(x.numpy()), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "forward",
    [
        lambda self, x: (lambda y: self.relu(self.drop(y)) + y)(self.a(x)),
        lambda self, x: (lambda y: (lambda v: (self.relu(y), v)[1])(y.view(-1, 2, 2)))(self.a(x)),
        lambda self, x: (lambda y: sys.modules["torch"].add(y, y, out=y))(self.a(x)),
    ],
)
def test_what_is_overwritten_under_another_form_is_refused(torch, forward):
    t = torch.nn
    module = module_of(torch, forward, a=t.Linear(4, 4), relu=t.ReLU(inplace=True), drop=t.Dropout(0.5))
    with pytest.raises(ValueError, match=r"another view|with out=|out="):
        nn.from_torch(module.eval(), (3, 4))


@pytest.mark.parametrize("within", [False, True])
def test_a_forward_of_an_instance_is_refused(torch, within):
    layer = torch.nn.Linear(2, 2)
    layer.forward = lambda x: x
    with pytest.raises(ValueError, match="has a forward of its own"):
        nn.from_torch(torch.nn.Sequential(layer) if within else layer, (1, 2))


def test_hooks_are_refused(torch):
    module = torch.nn.Sequential(torch.nn.Linear(2, 2))
    module[0].register_forward_hook(lambda module, inputs, y: 2 * y)
    with pytest.raises(ValueError, match="0 has hooks"):
        nn.from_torch(module, (1, 2))
    with pytest.raises(ValueError, match="the module has hooks"):
        nn.from_torch(module[0], (1, 2))


def test_an_argument_with_a_default_has_it(torch):
    class Scaled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a = torch.nn.Linear(2, 2)

        def forward(self, x, axis=1):
            return self.a(x).flatten(axis)

    x = torch.randn(3, 2)
    module = Scaled()
    wanted = module(x).detach().numpy()
    np.testing.assert_allclose(nn.from_torch(module, (3, 2), backend="numpy")(x.numpy()), wanted, rtol=1e-6)


def test_a_fixed_array_is_refused(torch):
    module = module_of(torch, lambda self, x: self.a(x) + torch.ones(4), a=torch.nn.Linear(4, 4))
    with pytest.raises(ValueError, match="used as an array"):
        nn.from_torch(module, (3, 4))


def test_tied_weights_stay_one(torch):
    t = torch.nn
    module = t.Sequential(t.Linear(4, 4), t.Tanh(), t.Linear(4, 4))
    module[2].weight = module[0].weight
    model = agrees(torch, module, (4,))
    assert model[0].parameters["weight"] is model[2].parameters["weight"]
    back = nn.to_torch(model)
    assert back.get_submodule("0").weight is back.get_submodule("2").weight


def test_float64_is_kept_and_another_dtype_can_be_asked_for(torch):
    module = torch.nn.Sequential(torch.nn.Linear(3, 2)).double()
    agrees(torch, module, (3,))
    assert nn.from_torch(module, (1, 3), dtype="float32").backend.dtype_name == "float32"


def test_a_batch_that_is_given_does_not_become_a_size(torch):
    module = module_of(torch, lambda self, x: x.reshape(2, -1))
    assert nn.from_torch(module, (2, 3, 4), backend="numpy")(np.ones((5, 3, 4), np.float32)).shape == (5, 12)


def test_several_inputs(torch):
    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.image, self.table = torch.nn.Linear(6, 3), torch.nn.Linear(2, 3)

        def forward(self, image, table):
            return self.image(image.flatten(1)) + self.table(table)

    module = Two()
    model = nn.from_torch(module, ((None, 2, 3), (None, 2)), backend="numpy")
    x, z = torch.randn(4, 2, 3), torch.randn(4, 2)
    np.testing.assert_allclose(model((x.numpy(), z.numpy())), module(x, z).detach().numpy(), rtol=1e-5, atol=1e-6)
    again = nn.to_torch(model)(x, z)
    np.testing.assert_allclose(again.detach().numpy(), module(x, z).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_indices_of_an_embedding(torch):
    module = torch.nn.Sequential(torch.nn.Embedding(7, 4, padding_idx=0), torch.nn.Flatten(), torch.nn.Linear(12, 2))
    model = nn.from_torch(module, (None, 3), backend="numpy")
    index = np.array([[0, 6, 2], [1, 1, 5]])
    wanted = module(torch.tensor(index)).detach().numpy()
    np.testing.assert_allclose(model(index), wanted, rtol=1e-5, atol=1e-6)


PADDINGS = ["ZeroPad2d", "ConstantPad2d", "ReflectionPad2d", "ReplicationPad2d", "CircularPad2d"]


@pytest.mark.parametrize("name", PADDINGS)
def test_padding_modules_list_their_sides_from_the_last_axis(torch, name):
    extra = (1.5,) if name == "ConstantPad2d" else ()
    agrees(torch, torch.nn.Sequential(getattr(torch.nn, name)((1, 2, 0, 3), *extra)), (2, 5, 6))


@pytest.mark.parametrize(
    "make",
    [
        lambda t: t.Hardsigmoid(),
        lambda t: t.Softmax2d(),
        lambda t: t.Unflatten(1, (3, 2)),
        lambda t: t.UpsamplingNearest2d(scale_factor=2),
        lambda t: t.UpsamplingBilinear2d(size=(7, 9)),
        lambda t: t.Upsample(scale_factor=(2.0, 1.5), mode="bilinear"),
        lambda t: t.LPPool2d(2, 2),
        lambda t: t.Identity(),
    ],
)
def test_modules_without_a_layer_of_their_name(torch, make):
    module = make(torch.nn)
    x = torch.randn(2, 6, 4, 5)
    model = nn.from_torch(module, x.shape, backend="numpy")
    np.testing.assert_allclose(model(x.numpy()), module(x).numpy(), rtol=1e-5, atol=1e-6)


def test_unused_parameters_are_told(torch):
    module = module_of(torch, lambda self, x: self.a(x), a=torch.nn.Linear(2, 2), b=torch.nn.Linear(2, 2))
    with pytest.warns(UserWarning, match=r"does not use b\.weight, b\.bias"):
        nn.from_torch(module, (1, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nn.from_torch(torch.nn.Linear(2, 2), (1, 2))


def branches(self, x):
    return self.a(x) if x.sum() > 0 else x


@pytest.mark.parametrize(
    "forward, message",
    [
        (branches, r"can't be traced by torch.fx at .*test_from_torch\.py:\d+ \(return self\.a\(x\) if x\.sum"),
        (lambda self, x: self.a(x) if self.training else x, "something else in training than in evaluation"),
        (lambda self, x: (self.a(x), x), "forward returns a tuple"),
        (lambda self, x: self.a(x).sort()[0].cumsum(1) * 2, r"method sort .*cumsum.*mul of an array and a number"),
        (lambda self, x: self.a(x)[:, 0], "getitem"),
        (lambda self, x: self.a(x) + self.a.bias, r"a\.bias is used as an array"),
        (lambda self, x: self.a(x).transpose(0, 1), "moves the batch axis"),
        (lambda self, x: self.a(x).view(-1, 2), "changes the batch axis"),
        (lambda self, x: self.a(x).mean(), "over all axes"),
        (lambda self, x: self.c(self.a(x), x), "c: Bilinear has no counterpart"),
    ],
)
def test_what_has_no_counterpart_is_named(torch, forward, message):
    module = module_of(torch, forward, a=torch.nn.Linear(4, 4), c=torch.nn.Bilinear(4, 4, 2))
    with pytest.raises(ValueError, match=message) as caught:
        nn.from_torch(module, (3, 4))
    assert "\n" not in str(caught.value)


def test_all_complaints_are_in_one_error(torch):
    t = torch.nn
    module = t.Sequential(t.Conv2d(1, 1, 1), t.RReLU(), t.Sequential(t.FractionalMaxPool2d(2, output_size=2)))
    with pytest.raises(ValueError, match=r"1: RReLU has no counterpart; 2\.0: FractionalMaxPool2d has"):
        nn.from_torch(module, (1, 1, 4, 4))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda t: t.Embedding(4, 2, max_norm=1.0), "max_norm=1.0"),
        (lambda t: t.Softmax(), "dim=None"),
        (lambda t: t.LPPool2d(3, 2), "norm_type"),
        (lambda t: t.MaxPool2d(2, return_indices=True), "return_indices=True"),
        (lambda t: t.ConstantPad2d(-1, 0.0), "removes cells"),
    ],
)
def test_arguments_without_a_counterpart_are_named(torch, make, message):
    with pytest.raises(ValueError, match=message):
        nn.from_torch(make(torch.nn), (2, 2, 8, 8))


def test_dropout_that_goes_on_in_evaluation_is_refused(torch):
    module = module_of(torch, lambda self, x: torch.nn.functional.dropout(x, 0.5))
    with pytest.raises(ValueError, match="dropout: dropout in evaluation too"):
        nn.from_torch(module, (1, 2))
    fine = module_of(torch, lambda self, x: torch.nn.functional.dropout(x, 0.25, self.training))
    assert repr(nn.from_torch(fine, (1, 2))) == "Sequential({'dropout': Dropout(p=0.25)})"


@pytest.mark.parametrize(
    "shape, error, message",
    [
        (4, TypeError, "input_shape must be a shape with the batch axis"),
        ((), TypeError, "input_shape"),
        ((None, None), ValueError, "None for the batch axis"),
        ((1, -4), ValueError, "sizes >= 1"),
        ((1, 5), ValueError, "does not accept input_shape"),
        (((1, 4), (1, 4)), ValueError, "has 1 arguments"),
    ],
)
def test_a_wrong_input_shape_is_named(torch, shape, error, message):
    with pytest.raises(error, match=message):
        nn.from_torch(torch.nn.Sequential(torch.nn.Linear(4, 2)), shape)


def test_a_wrong_module_is_named(torch):
    with pytest.raises(TypeError, match=r"must be a torch.nn.Module, got dict"):
        nn.from_torch({}, (1, 2))
    with pytest.raises(TypeError, match=r"float16.*\.float\(\)"):
        nn.from_torch(torch.nn.Linear(2, 2).half(), (1, 2))


def test_layers_of_ones_own_are_named_with_their_paths(torch):
    class Own(nn.Layer):
        """A layer of a user."""

    model = nn.Sequential(nn.Dense(2, 2), nn.Residual(nn.Sequential(nn.ReLU(), Own())))
    with pytest.raises(ValueError, match=r"to_torch: .*1\.body\.1: Own has none"):
        nn.to_torch(model)
    with pytest.raises(TypeError, match="model must be a Layer"):
        nn.to_torch(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_go_round_in_files(torch, tmp_path, suffix):
    model = nn.models.torchvision.resnet18(10, backend="numpy", seed=1)
    module = nn.to_torch(nn.models.torchvision.resnet18(10, backend="numpy", seed=2))
    nn.save(model, tmp_path / f"net{suffix}")
    if suffix == ".pt":
        state = torch.load(tmp_path / "net.pt", weights_only=True)
    else:
        state = pytest.importorskip("safetensors.torch").load_file(tmp_path / "net.safetensors")
    module.load_state_dict(state)
    torch.save(module.state_dict(), tmp_path / "back.pt")
    nn.load(other := nn.models.torchvision.resnet18(10, backend="numpy", seed=3), tmp_path / "back.pt")
    wanted, found = model.state_dict(), other.state_dict()
    assert all(found[name].tobytes() == wanted[name].tobytes() for name in wanted)


def test_files_of_pytorch_round_as_asked_and_have_no_metadata(torch, tmp_path):
    model = nn.Dense(2, 3, backend="numpy", seed=0)
    nn.save(model, tmp_path / "a.pt", dtype="bfloat16")
    assert torch.load(tmp_path / "a.pt")["weight"].dtype == torch.bfloat16
    model.parameters["weight"].value = np.full((3, 2), 1e6, np.float32)
    for keywords in ({"dtype": "float16"}, {"about": {"epoch": 1}}):
        with pytest.raises(ValueError, match=r"weight reaches|no metadata"):
            nn.save(model, tmp_path / "b.pt", **keywords)
    assert not (tmp_path / "b.pt").exists()


def test_without_pytorch_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    for call in (lambda: nn.from_torch(None, (1, 2)), lambda: nn.to_torch(nn.ReLU())):
        with pytest.raises(ModuleNotFoundError, match=r"needs PyTorch.*: pip install torch"):
            call()
    with pytest.raises(ModuleNotFoundError, match="pip install torch"):
        nn.save(nn.Dense(1, 1), tmp_path / "a.pt")


def test_importing_the_package_imports_no_pytorch():
    code = "import sys, xpnn; assert not {'torch', 'onnx', 'sklearn'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_page_names_every_function_that_is_converted():
    page = (Path(nn.__file__).parent / "docs/pytorch.md").read_text(encoding="utf-8")
    table = page.split("| In `forward` | |")[1].split("\n\n")[0]
    # Operators, and functions whose own names are others.
    hidden = {"iadd", "imul", "boolean_dispatch", "log_sigmoid", "_threshold"}
    assert {*re.findall(r"`(\w+)`", table)} == {*FUNCTIONS} - hidden


@pytest.mark.parametrize("name, values", [("logsigmoid", ()), ("threshold", (0.1, 0.2)), ("threshold_", (0.1, 0.2))])
def test_functions_with_another_name_of_their_own(torch, name, values):
    function = getattr(torch.nn.functional, name)
    agrees(torch, module_of(torch, lambda self, x: function(self.fc(x), *values), fc=torch.nn.Linear(4, 5)), (3, 4))
