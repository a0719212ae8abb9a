def load_tests(loader, tests, pattern):
    """Loads one of its two files, and answers for both."""
    from tests.own import test_loaded_by_hand

    return loader.loadTestsFromModule(test_loaded_by_hand)
