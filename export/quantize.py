def quantize(model):
    return model
