"""The predicted step against numbers computed by hand from the anchors."""

import pytest

from benchmark.speed.predict import Args, predict, table


def seconds(**changes) -> dict[str, tuple[float, float]]:
    return {phase.name: (phase.low, phase.high) for phase in predict(Args(**changes))}


def test_the_step_that_was_measured_is_predicted_from_its_anchors():
    found = seconds()
    # 32 x 118 prompt tokens, once a group, and 256 x 512 response tokens.
    assert found["base"] == pytest.approx((134_848 / 58_000,) * 2)
    assert found["train"] == pytest.approx((134_848 / 19_150, 134_848 / 17_700))
    assert found["rollout: prefill"][0] == pytest.approx(3_776 / 58_000)
    assert found["rollout: decode"] == pytest.approx((512 * 256 / 30_300, 512 * 256 / 23_000))
    assert found["sync"] == pytest.approx((0.27, 0.51))
    assert sum(low for low, _ in found.values()) == pytest.approx(14.09, abs=0.01)
    assert sum(high for _, high in found.values()) == pytest.approx(16.28, abs=0.01)


def test_the_limit_is_that_of_the_hardware():
    limit = {phase.name: phase.limit for phase in predict(Args())}
    # 6.17 GB of weights and 256 x (118 + 256) x 36,864 bytes of keys and values at 2.94 TB/s; 798 TFLOP/s.
    assert limit["rollout: decode"] == pytest.approx(512 * (6.171877e9 + 3.529507e9) / 2.94e12, rel=1e-4)
    assert limit["base"] == pytest.approx(2 * 3.085938688e9 * 134_848 / 798e12)
    assert limit["train"] == pytest.approx(3 * limit["base"])


def test_fewer_sequences_take_the_other_anchor_and_a_smaller_model_its_parameters():
    assert seconds(batch=64)["rollout: decode"] == pytest.approx((512 * 64 / 14_500, 512 * 64 / 12_900))
    assert seconds(batch=64)["train"][0] == pytest.approx(seconds()["train"][0] / 4)
    ratio = seconds(shape="qwen3-4b")["train"][0] / seconds()["train"][0]
    assert ratio == pytest.approx(4.022468096 / 3.085938688)
    assert seconds(response=1024)["rollout: decode"][0] > 2 * seconds()["rollout: decode"][0]  # longer keys to read


def test_the_table_has_a_line_for_each_phase_and_their_sum():
    lines = table(predict(Args())).splitlines()
    assert len(lines) == 2 + 6 + 1 and all(line.count("|") == 6 for line in lines)
    assert lines[-1].split("|")[4].strip() == "14.09-16.28"
