def fit(data:
    return data
