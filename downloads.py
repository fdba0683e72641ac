def download(name):
    raise NotImplementedError
