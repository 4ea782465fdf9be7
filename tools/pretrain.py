from simclr_mm.commands.pretrain.command import main

if __name__ == '__main__':
    main()
