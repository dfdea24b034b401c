"""Outside a pipeline a step is the plain function, so it is tested as one."""

from pipelines.tumours import TARGET, fit, load, split


def test_the_split_keeps_every_row_once():
    table = load()
    train, test = split(table)
    assert train.height + test.height == table.height


def test_a_small_forest_is_right_nine_times_in_ten():
    train, test = split(load())
    model = fit(train, trees=20)
    right = (model.predict(test.drop(TARGET)) == test[TARGET].to_numpy()).mean()
    assert right > 0.9
