package health

func frozenChild() {}
