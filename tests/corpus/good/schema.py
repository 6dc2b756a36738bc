class Bracelet:
    pass
