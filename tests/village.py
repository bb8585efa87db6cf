"""A market case on a small OpenDSS circuit that has one of everything, written as the files of a case folder.

::

    grid --- reg (three regulators) === mid ====== end === shop      three phases; shop behind a wye-delta transformer
                                         |-2,4--- lat --- house      one phase and its neutral; a centre-tapped service
"""

from pathlib import Path

FILES = {
    "village.dss": """\
Clear
New Circuit.village BasekV=12.47 pu=1.02 Angle=30 Bus1=grid MVAsc3=150 MVAsc1=120
New Linecode.main NPhases=3 Units=km
~ RMatrix=[0.36 | 0.10 0.35 | 0.10 0.11 0.36] XMatrix=[0.72 | 0.31 0.74 | 0.27 0.29 0.72]
~ CMatrix=[10 | -2.1 10.5 | -1.4 -1.8 10]
New Linecode.side NPhases=2 Units=km
~ RMatrix=[0.58 | 0.12 0.65] XMatrix=[0.81 | 0.38 0.86] CMatrix=[8 | -1.5 8]

New Transformer.reg1 Phases=1 Buses=[grid.1 reg.1] kVs=[7.2 7.2] kVAs=[1500 1500] XHL=1 %LoadLoss=0.1
New Transformer.reg2 Like=reg1 Buses=[grid.2 reg.2]
New Transformer.reg3 Like=reg1 Buses=[grid.3 reg.3]
New RegControl.reg1 Transformer=reg1 Winding=2 VReg=122 Band=2 PTRatio=60 CTPrim=200 R=4 X=6
New RegControl.reg2 Like=reg1 Transformer=reg2
New RegControl.reg3 Like=reg1 Transformer=reg3

New Line.main Bus1=reg Bus2=mid Linecode=main Length=4 Units=km NormAmps=150
New Line.far Bus1=mid Bus2=end Linecode=main Length=3 Units=km NormAmps=150
New Line.lateral Phases=2 Bus1=mid.2.4 Bus2=lat.2.4 Linecode=side Length=2 Units=km NormAmps=100
New Reactor.ground1 Phases=1 Bus1=mid.4 Bus2=mid.0 R=2 X=0
New Reactor.ground2 Phases=1 Bus1=lat.4 Bus2=lat.0 R=5 X=0
New Transformer.shop Phases=3 Buses=[end shop] Conns=[wye delta] kVs=[12.47 0.48] kVAs=[500 500] XHL=5 %LoadLoss=1
New Transformer.house Phases=1 Windings=3 Buses=[lat.2 house.1.0 house.0.2] kVs=[7.2 0.12 0.12] kVAs=[50 50 50]
~ XHL=2.1 XHT=2.1 XLT=1.4 %Rs=[0.6 1.2 1.2]

New Load.homes Bus1=mid Phases=3 kV=12.47 kW=600 kvar=220 Model=1
New Load.current Bus1=end.1 Phases=1 kV=7.2 kW=150 kvar=60 Model=5
New Load.impedance Bus1=lat.2.4 Phases=1 kV=7.2 kW=120 kvar=45 Model=2
New Load.delta Bus1=end.2.3 Phases=1 Conn=delta kV=12.47 kW=180 kvar=70 Model=1
New Load.motor Bus1=mid.3 Phases=1 kV=7.2 kW=90 kvar=50 Model=3
New Load.saved Bus1=end.3 Phases=1 kV=7.2 kW=110 kvar=40 Model=4 CVRwatts=0.8 CVRvars=2.3
New Load.mixed Bus1=mid.1 Phases=1 kV=7.2 kW=80 kvar=30 Model=8 ZIPV=[0.3 0.5 0.2 0.2 0.2 0.6 0]
New Load.machine Bus1=shop Phases=3 Conn=delta kV=0.48 kW=180 kvar=90 Model=1
New Load.lamps Bus1=house.1 Phases=1 kV=0.12 kW=6 kvar=2 Model=5
New Load.stove Bus1=house.1.2 Phases=1 kV=0.24 kW=9 kvar=1 Model=2
New Generator.mill Bus1=end.2 Phases=1 kV=7.2 kW=40 kvar=5 Model=1
New Capacitor.bank Bus1=end Phases=3 kV=12.47 kvar=150 NumSteps=3

Set VoltageBases=[12.47 0.48 0.208]
CalcVoltageBases
""",
    "case.toml": """\
name = "village"

[network]
source = "opendss:village.dss"
v_min_pu = 0.94
v_max_pu = 1.06

[horizon]
start = 2026-07-01T07:00:00Z
interval_minutes = 60
intervals = 3
""",
    "import_prices.csv": "interval,price_usd_per_mwh\n0,20\n1,70\n2,45\n",
    "load_profile.csv": "interval,scale\n0,0.5\n1,1.3\n2,1\n",
    "resources.csv": """\
resource,bus,phase,kind,p_min_kw,p_max_kw,q_min_kvar,q_max_kvar,s_max_kva
plant,end,,generator,0,400,-100,100,410
sun,lat,2,solar,0,90,-30,30,
cooling,shop,12,demand_response,-60,0,,,
battery,mid,3,other,-50,80,-20,20,
""",
    "bids.csv": """\
resource,interval,side,segment,quantity_kw,price_usd_per_mwh
plant,,supply,0,150,40
plant,,supply,1,250,62
sun,,supply,0,90,3
cooling,,demand,0,60,55
battery,,supply,0,80,66
battery,,demand,0,50,30
""",
}


def write_village(folder: Path, **replaced: tuple[str, str]) -> Path:
    """Write the case into a new folder, in each file named (``village_dss``) one text in place of another."""
    folder.mkdir(parents=True)
    for name, text in FILES.items():
        old, new = replaced.get(name.replace(".", "_"), ("", ""))
        assert old in text
        (folder / name).write_text(text.replace(old, new) if old else text, "utf-8")
    return folder
