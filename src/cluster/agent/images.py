

# --- disk images ------------------------------------------------------------------------------------------------


class Images(State):
    def image(self, pool, name, read_only=True, snapshot=None):
        if not read_only:
            in_time()
        return rbd.Image(self.ioctx(pool), name, snapshot=snapshot, read_only=read_only)

    def rbd_list(self, pool):
        return sorted(rbd.RBD().list(self.ioctx(pool)))

    def rbd_info(self, pool, name):
        try:
            image = self.image(pool, name)
        except rbd.ImageNotFound:
            return None
        with image:
            try:
                parent = image.parent_info()
                parent = {"pool": parent[0], "image": parent[1], "snapshot": parent[2]}
            except rbd.ImageNotFound:
                parent = None
            snaps = [{"name": s["name"], "size": s["size"], "protected": image.is_protected_snap(s["name"])}
                     for s in image.list_snaps()]
            meta = {k: v for k, v in image.metadata_list()}
            return {"name": name, "size": image.size(), "features": image.features(), "id": image.id(),
                    "parent": parent, "snapshots": snaps, "meta": meta}

    def rbd_create(self, pool, name, size):
        io = self.ioctx(pool)
        in_time()
        try:
            rbd.RBD().create(io, name, size, old_format=False)
        except rbd.ImageExists:
            raise Refused("exists", "disk image %s exists" % name)

    def rbd_clone(self, pool, parent, snapshot, child, size, meta):
        io = self.ioctx(pool)
        in_time()
        try:
            rbd.RBD().clone(io, parent, snapshot, io, child)
        except rbd.ImageExists:
            raise Refused("exists", "disk image %s exists" % child)
        with self.image(pool, child, read_only=False) as image:
            if size and size > image.size():
                image.resize(size)
            for key, value in meta.items():
                image.metadata_set(key, value)
            return image.size()

    def rbd_grow(self, pool, name, size):
        """At least this size: a late request must not cut off what another one has added."""
        with self.image(pool, name, read_only=False) as image:
            if size > image.size():
                image.resize(size)
            return image.size()

    def rbd_write(self, pool, name, size, chunks):
        """A small image whose whole content is given; what is not given is zeros."""
        io = self.ioctx(pool)
        in_time()
        try:
            rbd.RBD().create(io, name, size, old_format=False)
        except rbd.ImageExists:
            with self.image(pool, name, read_only=False) as image:
                image.resize(0)
                image.resize(size)
        with self.image(pool, name, read_only=False) as image:
            for offset, text in chunks:
                image.write(base64.b64decode(text), offset)
            image.flush()

    def rbd_read(self, pool, name, offset, length, snapshot=None):
        with self.image(pool, name, snapshot=snapshot) as image:
            length = max(0, min(length, image.size() - offset))
            return base64.b64encode(image.read(offset, length)).decode()

    def rbd_snap_create(self, pool, name, snapshot, protect):
        with self.image(pool, name, read_only=False) as image:
            if snapshot not in [s["name"] for s in image.list_snaps()]:
                image.create_snap(snapshot)
            if protect and not image.is_protected_snap(snapshot):
                image.protect_snap(snapshot)

    def rbd_snap_create_all(self, pool, snapshots):
        """New snapshots of several images, as close together as can be: all of them, or none."""
        images, made = [], []
        try:
            for name, _ in snapshots:
                images.append(self.image(pool, name, read_only=False))
            for image, (name, snapshot) in zip(images, snapshots):
                if snapshot in [s["name"] for s in image.list_snaps()]:
                    raise Refused("exists", "snapshot %s@%s exists" % (name, snapshot))
            in_time()

            def make(pair):
                image, (_, snapshot) = pair
                image.create_snap(snapshot)
                made.append(pair)
            with ThreadPoolExecutor(max(1, min(16, len(images)))) as threads:
                tried = [threads.submit(make, pair) for pair in zip(images, snapshots)]
            failed = [t.exception() for t in tried if t.exception() is not None]
            if failed:
                for image, (_, snapshot) in made:
                    image.remove_snap(snapshot)
                raise failed[0]
        finally:
            for image in images:
                image.close()

    def rbd_snap_remove(self, pool, name, snapshot):
        with self.image(pool, name, read_only=False) as image:
            try:
                if image.is_protected_snap(snapshot):
                    image.unprotect_snap(snapshot)
                image.remove_snap(snapshot)
            except rbd.ImageNotFound:
                return
            except rbd.ImageBusy:
                raise Refused("busy", "snapshot %s@%s has clones" % (name, snapshot))

    def rbd_children(self, pool, name):
        with self.image(pool, name) as image:
            return sorted(c["image"] for c in image.list_children2() if not c["trash"])

    def rbd_remove(self, pool, name):
        io = self.ioctx(pool)
        in_time()
        try:
            rbd.RBD().remove(io, name)
        except rbd.ImageNotFound:
            return False
        except rbd.ImageHasSnapshots:
            raise Refused("busy", "disk image %s has snapshots" % name)
        except rbd.ImageBusy:
            raise Refused("busy", "disk image %s is open" % name)
        return True

    def rbd_users(self, pool, name):
        """Who has the image open, and who holds its lock."""
        with self.image(pool, name) as image:
            own = self.rados.get_instance_id()
            watchers = [{"address": w["addr"], "client": w["id"]} for w in image.watchers_list()]
            lockers = image.list_lockers() or {}
            return {"watchers": [w for w in watchers if w["client"] != own],
                    "lockers": [{"client": c, "cookie": k, "address": a} for c, k, a in lockers.get("lockers", [])]}

    def rbd_meta_set(self, pool, name, key, value):
        with self.image(pool, name, read_only=False) as image:
            image.metadata_set(key, value)

    def rbd_break_lock(self, pool, name, client, cookie, address):
        """Breaks the lock of exactly this client; tells whether it still held it."""
        with self.image(pool, name) as image:
            holders = (image.list_lockers() or {}).get("lockers", [])
        if (client, cookie, address) not in [tuple(holder) for holder in holders]:
            return False
        # Opening the image for writing does not take its lock; the first write would.
        with self.image(pool, name, read_only=False) as image:
            try:
                image.break_lock(client, cookie)
            except rbd.ImageNotFound:
                return False
        return True
