"""Search spaces: strict loading, overrides per category, first points, the shipped files."""

import time
from pathlib import Path

import pytest

from dfsc_tune.errors import UserError
from dfsc_tune.settings import loads
from dfsc_tune.spaces.parameters import CategoricalParameter
from dfsc_tune.spaces.space import SearchSpace, find_space, load_space

SPACES = Path(__file__).parents[1] / "search_spaces"
GOOD = """\
fixed:
  model: {network: tiny, image_size: 128}
parameters:
  margin: {type: float, low: 0.0, high: 2.0}
  quantile: {type: float, low: 0.9, high: 0.9999, scale: log_complement}
  constraint_order: {type: categorical, choices: [mask_first, normalize_first]}
starting_points:
  - {margin: 0.4}
budget: {num_trials: 8, num_steps: 100, report_interval: 10, grace_period: 20}
categories:
  screw_bag:
    fixed: {loss: {alpha: 4.0}}
    parameters:
      margin: {type: float, low: 0.5, high: 1.5}
    starting_points: [{margin: 0.7}]
"""


def parse(text: str) -> SearchSpace:
    return loads(text, SearchSpace, "space.yaml")


@pytest.mark.parametrize("path", sorted(SPACES.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_spaces_load_and_say_purpose_cost_and_command(path: Path) -> None:
    assert load_space(str(path)) == load_space(path.stem)
    head = path.read_text().splitlines()[:3]
    assert [line.split(":")[0] for line in head] == ["# Purpose", "# Cost", "# Command"]
    assert "dfsc-tune search" in head[2]


def test_the_margin_space_is_table_3() -> None:
    space = load_space("margin")
    of_category = space.for_category("any")
    points = [*(x for _, x in of_category.first_points()), *of_category.untried_combinations()]
    assert sorted(x["margin"] for x in points) == [0.0, 0.2, 0.4, 1.0, 2.0]
    assert of_category.num_expected(space.budget.num_trials) == 5
    assert space.budget.grace_period == space.budget.num_steps == 70_000


def test_unknown_names_list_what_exists() -> None:
    with pytest.raises(
        UserError, match=r"no search space 'nope'.*cpu, default, margin, record, smoke"
    ):
        find_space("nope")


def test_the_paper_and_margin_0_come_first() -> None:
    of_category = parse(GOOD).for_category("other")
    points = of_category.first_points()
    paper = {"margin": 1.0, "quantile": 0.999, "constraint_order": "mask_first"}
    assert points == [
        ("paper", paper),
        ("margin_0", {**paper, "margin": 0.0}),
        ("starting_point", {**paper, "margin": 0.4}),
    ]


def test_categories_override_the_rest() -> None:
    of_category = parse(GOOD.replace("  - {margin: 0.4}", "  []")).for_category("screw_bag")
    base = of_category.base_config("screw_bag", seed=3)
    assert (base.loss.alpha, base.seed, base.model.network) == (4.0, 3, "tiny")
    assert of_category.parameters["margin"].bounds() == (0.5, 1.5)
    assert of_category.first_points()[-1][1]["margin"] == 0.7


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("high: 2.0", "high: 2.5", "space.yaml:4: parameters.margin.high: must be less than or"),
        ("low: 0.0, high: 2.0", "low: 1.0, high: 1.0", "4: parameters.margin: the range is empty"),
        (
            "low: 0.0, high: 2.0",
            "low: .nan, high: 1.0",
            "4: parameters.margin.low: must be a finite",
        ),
        ("low: 0.0, high: 2.0", "low: 0.0", "4: parameters.margin.high: Field required"),
        ("  margin: {type", "  margn: {type", "4: parameters.margn: cannot be searched; choose"),
        ("0.9999, scale", "1.0, scale", "5: parameters.quantile: scale 'log_complement' needs"),
        ("log_complement", "logit", "5: parameters.quantile.scale: must be 'linear', 'log' or"),
        ("[mask_first, norm", "[mask_last, norm", "6: parameters.constraint_order.choices.0: must"),
        (
            "mask_first, normalize_first",
            "",
            "6: parameters.constraint_order.choices: must have at least 1 item",
        ),
        ("{margin: 0.4}", "{margin: 2.2}", "8: starting_points.0.margin: lies outside the param"),
        ("{margin: 0.4}", "{margin: yes}", "8: starting_points.0.margin: lies outside the param"),
        ("{margin: 0.4}", "{alpha: 1.0}", "8: starting_points.0.alpha: is not a parameter of this"),
        ("{margin: 0.7}", "{margin: 0.2}", "15: categories.screw_bag.starting_points.0.margin: "),
        ("grace_period: 20", "grace_period: 200", "9: budget: grace_period must not exceed"),
        ("grace_period: 20", "grace_period: 9", "9: budget: grace_period 9 must not be below"),
        ("num_trials: 8", "num_trials: 0", "9: budget.num_trials: must be greater than or equal"),
        ("num_trials: 8", f"num_trials: {10**30}", "9: budget.num_trials: must be less than or"),
        ("num_steps: 100", f"num_steps: {10**30}", "9: budget.num_steps: must be less than or"),
        ("num_trials: 8", "num_trial: 8", "9: budget.num_trial: unknown key"),
        ("network: tiny", "network: nano", "2: fixed.model.network: must be 'tiny', 'small'"),
        ("  model:", "  trian:", "2: fixed.trian: cannot be fixed here; choose from model"),
        (
            "{alpha: 4.0}",
            "{margin: 1.0}",
            "12: categories.screw_bag.fixed.loss.margin: is searched",
        ),
        ("budget:", "resources: {gpus_per_trial: 1e-300}\nbudget:", "must be 0 or at least 0.001"),
        ("budget:", "resources: {gpus_per_trial: 1.5}\nbudget:", "9: resources: gpus_per_trial"),
        (
            "alpha: 4.0",
            "quantile: 0.5",
            "12: categories.screw_bag.fixed.loss.quantile: is searched",
        ),
        ("budget:", "sampler: grid\nbudget:", "parameters.margin: sampler 'grid' needs type 'cat"),
        ("  model: {", "  train: {num_steps: 5}\n  model: {", "2: fixed.train.num_steps: belongs"),
        ("[mask_first, norm", "[mask_first, mask_first, norm", "6: parameters.constraint_order: a"),
        ("{margin: 0.4}", "{margin: .nan}", "8: starting_points.0.margin: must be a finite number"),
        ("{margin: 0.4}", '{margin: "0.4"}', "8: starting_points.0.margin: lies outside the param"),
        ("type: float, low: 0.0", "type: int, low: 0.5", "4: parameters.margin.low: "),
        ("low: 0.0, high: 2.0", "low: no, high: 2.0", "4: parameters.margin.low: must be a valid"),
        (
            "low: 0.0, high: 2.0",
            "low: 0.0, high: .inf",
            "4: parameters.margin.high: must be a finite",
        ),
        ("budget:", "sampler: annealing\nbudget:", "9: sampler: must be 'tpe', 'gp', 'random'"),
    ],
)
def test_broken_rules_name_line_and_path(old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(UserError) as error:
        parse(GOOD.replace(old, new, 1))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_many_choices_are_checked_in_one_pass() -> None:
    choices = tuple(range(20_000))
    began = time.perf_counter()
    parameter = CategoricalParameter(choices=(*choices, True))
    assert time.perf_counter() - began < 5
    assert len(parameter.choices) == 20_001
    with pytest.raises(ValueError, match="a choice is given twice"):
        CategoricalParameter(choices=(*choices, 1.0))


CONDITIONAL = """\
parameters:
  optimizer: {type: categorical, choices: [adamw, adam]}
  weight_decay: {type: float, low: 1e-6, high: 1e-3, scale: log, when: {optimizer: adamw}}
  margin: {type: categorical, choices: [0.0, 0.4, 1.0]}
  alpha: {type: float, low: 0.25, high: 8.0, scale: log, when: {margin: [0.4, 1.0]}}
starting_points:
  - {optimizer: adam, alpha: 4.0}
budget: {num_trials: 8, num_steps: 100, report_interval: 10, grace_period: 20}
"""


def test_points_hold_only_what_exists_beside_the_rest() -> None:
    points = [point for _, point in parse(CONDITIONAL).for_category("x").first_points()]
    assert points == [
        {"optimizer": "adamw", "weight_decay": 1e-5, "margin": 1.0, "alpha": 2.0},
        {"optimizer": "adamw", "weight_decay": 1e-5, "margin": 0.0},
        {"optimizer": "adam", "margin": 1.0, "alpha": 4.0},
    ]


def test_a_grid_holds_each_combination_of_what_exists_once() -> None:
    text = (
        "parameters:\n  optimizer: {type: categorical, choices: [adamw, adam]}\n"
        "  weight_decay: {type: categorical, choices: [1e-5, 1e-4], when: {optimizer: adamw}}\n"
        "sampler: grid\n"
        "budget: {num_trials: 8, num_steps: 100, report_interval: 10, grace_period: 20}\n"
    )
    of_category = parse(text).for_category("x")
    paper = {"optimizer": "adamw", "weight_decay": 1e-5}
    assert of_category.first_points() == [("paper", paper)]
    assert of_category.untried_combinations() == [
        {"optimizer": "adamw", "weight_decay": 1e-4},
        {"optimizer": "adam"},
    ]
    assert (of_category.num_expected(8), of_category.num_expected(2)) == (3, 2)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{optimizer: adamw}}", "{warmup: yes}}", "3: parameters.weight_decay.when.warmup: is no"),
        ("{optimizer: adamw}}", "{alpha: 4.0}}", "3: parameters.weight_decay.when.alpha: is no"),
        ("{optimizer: adamw}}", "{optimizer: sgd}}", "3: parameters.weight_decay.when.optimizer:"),
        ("[0.4, 1.0]}", "[no, 1.0]}", "5: parameters.alpha.when.margin: is not a choice of margin"),
        ("adam, alpha", "adam, weight_decay: 1e-5, alpha", "7: starting_points.0.weight_decay: d"),
        ("budget:", "sampler: gp\nbudget:", "3: parameters.weight_decay.when: sampler 'gp' cannot"),
        ("budget:", "sampler: qmc\nbudget:", "weight_decay.when: sampler 'qmc' cannot search cond"),
        ("budget:", "sampler: cmaes\nbudget:", "weight_decay.when: sampler 'cmaes' cannot search"),
    ],
)
def test_conditions_that_cannot_hold_are_refused(old: str, new: str, message: str) -> None:
    assert old in CONDITIONAL
    with pytest.raises(UserError) as error:
        parse(CONDITIONAL.replace(old, new, 1))
    assert message in str(error.value)


def test_cmaes_needs_a_number_to_search() -> None:
    text = GOOD.split("categories:")[0].split("  margin:")[0] + (
        "  constraint_order: {type: categorical, choices: [mask_first, normalize_first]}\n"
        "sampler: cmaes\nbudget: {num_trials: 8, num_steps: 9, report_interval: 3, "
        "grace_period: 3}\n"
    )
    with pytest.raises(UserError, match=r"parameters: sampler 'cmaes' needs a parameter of type"):
        parse(text)


def test_true_is_no_number() -> None:
    parameter = parse(
        GOOD.replace(
            "margin: {type: float, low: 0.0, high: 2.0}",
            "margin: {type: categorical, choices: [0, 1]}",
            1,
        )
        .replace("margin: 0.4", "margin: 1", 1)
        .split("categories:")[0]
    ).parameters["margin"]
    assert parameter.contains(1.0)
    assert not parameter.contains(True)


LISTED = """\
parameters:
  margin: {type: categorical, choices: [0.0, 1.0]}
  instance_norm_relu: {type: categorical, choices: [true, false]}
  seed: {type: categorical, choices: [0, 1]}
starting_points:
  - {margin: 0.0, instance_norm_relu: false, seed: 0}
  - {margin: 0.0, instance_norm_relu: false, seed: 1}
sampler: listed
budget: {num_trials: 9, num_steps: 100, report_interval: 10, grace_period: 100}
"""


def test_a_list_is_tried_alone_and_in_its_order() -> None:
    of_category = parse(LISTED).for_category("x")
    listed = {"margin": 0.0, "instance_norm_relu": False}
    points = [("starting_point", {**listed, "seed": seed}) for seed in (0, 1)]
    assert of_category.first_points() == points
    assert of_category.untried_combinations() == []
    assert of_category.num_expected(9) == 2
    assert of_category.num_expected(1) == 1
    config = of_category.base_config("x", seed=7).with_values(points[1][1])
    assert (config.seed, config.model.instance_norm_relu) == (1, False)


def test_a_list_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match=r"space.yaml:5: sampler: 'listed' tries starting_points"):
        parse(LISTED.split("starting_points")[0] + "sampler" + LISTED.split("sampler")[1])


def test_a_seed_is_not_fixed_in_a_space() -> None:
    with pytest.raises(UserError, match=r"fixed\.seed: cannot be fixed here; give it by --seed"):
        parse(f"fixed: {{seed: 1}}\n{LISTED}")
