"""Functions that documents of the corpus name as callbacks."""


def tell(context):
    return None


def count(context):
    return None
